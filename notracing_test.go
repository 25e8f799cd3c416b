//go:build !race

package watt_test

// racing reports whether the race detector is on: then there is no memory limit, and processes start slowly.
const racing = false
