package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	progressAfter = time.Second // what is over sooner says nothing
	progressEvery = 200 * time.Millisecond
	progressBar   = 30 // columns
)

// showProgress begins to show on standard error how far something is, until the
// function that it returns is called. Nothing is shown during the first second, nor
// where standard error is no terminal. part (may be nil) tells how much of the
// whole is done; a whole of 0: nobody knows.
func showProgress(what string, part func() (done, whole uint64)) (end func()) {
	return progressOn(os.Stderr, progressAfter, what, part)
}

func progressOn(out *os.File, after time.Duration, what string, part func() (done, whole uint64)) (end func()) {
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err != nil {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		begun, shown := time.Now(), false
		for wait := after; ; wait = progressEvery {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(out, "\r\x1b[K")
				}
				return
			case <-time.After(wait):
			}
			shown = true
			fmt.Fprint(out, "\r"+progressLine(what, time.Since(begun), part)+"\x1b[K")
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}

// progressLine is what a terminal shows: a bar with percents and the time that is
// left by the rate so far, or only the time that has passed.
func progressLine(what string, passed time.Duration, part func() (done, whole uint64)) string {
	var done, whole uint64
	if part != nil {
		done, whole = part()
	}
	if whole == 0 {
		return fmt.Sprintf("%s: %v", what, passed.Round(time.Second))
	}
	share := min(float64(done)/float64(whole), 1)
	full := int(share * progressBar)
	line := fmt.Sprintf("%s: [%s%s] %3d %%", what, strings.Repeat("=", full), strings.Repeat(" ", progressBar-full), int(100*share))
	if done > 0 {
		left := time.Duration(float64(passed) * (1 - share) / share)
		line += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return line
}
