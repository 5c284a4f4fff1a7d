// Lets blocking.go declare functions without a body, which the runtime has.
