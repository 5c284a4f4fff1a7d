//go:build !race

package chunkd

const raceEnabled = false
