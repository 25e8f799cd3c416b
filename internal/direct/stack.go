package direct

// stack is what most handlers need of one, in bytes.
const stack = 5 << 10

// makeRoom makes the stack of a new goroutine large at once, while it is empty. It would grow anyway, in steps, each of
// which copies all frames there are by then and adjusts them: that was a seventh of the time of a call. A frame counts
// in full for a branch that is never taken too, and there costs nothing more.
//
//go:noinline
func (x *Exchange) makeRoom() byte {
	if x.callee == nil {
		var room [stack]byte
		return room[x.out.status]
	}
	return 0
}
