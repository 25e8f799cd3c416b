//go:build race

package process

// racing: the race detector asks for far more memory than it uses, and dies where that is refused.
const racing = true
