package direct

// stack is what most handlers need of one, in bytes.
const stack = 5 << 10

// MakeRoom makes the stack of a new goroutine, of which it is the first call, large at once. It would grow anyway, in steps,
// each of which copies all frames there are by then and adjusts them: that was a seventh of the time of a call. A frame
// counts in full for a branch that is never taken too, and there costs nothing more.
func MakeRoom() { room(0) }

// room has a large frame. Its argument is never below zero, which the compiler must not know.
//
//go:noinline
func room(i int) byte {
	if i < 0 {
		var room [stack]byte
		return room[-i]
	}
	return 0
}
