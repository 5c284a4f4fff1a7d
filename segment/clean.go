package segment

// clean empties one segment, if that is worth while, and tells whether it did.
func (s *Store) clean() bool { return false }
