// Package sockdiag asks Linux which TCP sockets there are.
package sockdiag
