// Package client is the library through which a host uses a Varve file system.
package client
