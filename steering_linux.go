package watt

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// extRandom loads a random number: SKF_AD_RANDOM of linux/filter.h.
const extRandom bpf.Extension = 56

// weigh turns instance i on or off: whether new connections get to its listener. While none is on all
// get some, and where the kernel cannot be told it gives all listeners the same share. Without a listener, or with one that
// is being removed, there is nothing to turn.
func (p *port) weigh(i int, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	if err != nil || s.leaving || p.shared || s.on == on {
		return
	}
	s.on = on
	p.steerLocked()
}

// steerLocked tells the kernel whom to choose. It does so also where all are on, or one is left: then a
// program of the same user that joins later gets nothing. A listener that never had company takes none.
func (p *port) steerLocked() { p.attachLocked(p.chosenLocked()) }

// chosen reports whether new connections get to the listener of instance i.
func (p *port) chosen(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	return err == nil && (p.shared || !p.steered || slices.Contains(p.chosenLocked(), slices.Index(p.group, s)))
}

// chosenLocked returns the indexes of the listeners that get new connections.
func (p *port) chosenLocked() []int {
	chosen := p.indexesLocked(func(s *socket) bool { return s.on })
	if len(chosen) == 0 {
		return p.indexesLocked(func(s *socket) bool { return !s.leaving })
	}
	return chosen
}

// movableLocked returns indexes that are right both before and after the listener at hole is closed and
// the one at last takes its place. If there are none it is last: once that has moved the kernel finds
// nobody there and chooses among all, none of which is closed then.
func (p *port) movableLocked(hole, last int) []int {
	chosen := slices.DeleteFunc(p.chosenLocked(), func(i int) bool { return i == hole || i == last })
	if len(chosen) == 0 {
		p.strays++
		return []int{last}
	}
	return chosen
}

func (p *port) indexesLocked(of func(*socket) bool) []int {
	var indexes []int
	for i, s := range p.group {
		if of(s) {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// attachLocked replaces the group's program. If the kernel refuses, the old one must not stay either: it
// knows an index that is wrong by now.
func (p *port) attachLocked(indexes []int) {
	program := steerTo(indexes)
	err := p.group[0].control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	p.steered = err == nil
	if err != nil {
		_ = p.group[0].control(func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		})
	}
}

// steerTo returns the program that takes one of some indexes at random.
func steerTo(indexes []int) []unix.SockFilter {
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: extRandom},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(len(indexes))},
	}
	for nth, index := range indexes {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nth), SkipTrue: 1},
			bpf.RetConstant{Val: uint32(index)})
	}
	return assembled(append(program, bpf.RetConstant{Val: uint32(indexes[0])})) // programs must end so
}

// assembled returns a program as the kernel takes it.
func assembled(program []bpf.Instruction) []unix.SockFilter {
	filters := make([]unix.SockFilter, 0, len(program))
	for _, instruction := range program {
		raw, _ := instruction.Assemble() // these cannot fail
		filters = append(filters, unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K})
	}
	return filters
}
