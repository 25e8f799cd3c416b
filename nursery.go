package watt

import (
	"fmt"

	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/process"
)

// nursery is what a runtime with own processes has to raise them.
type nursery struct {
	starter *process.Starter
	page    *page.Page
	table   string
	slots   map[string]span
	calls   map[string]int // where the page begins to count those of an app's instances
}

// maxProcesses is how many instances of an app may have processes of their own.
const maxProcesses = 64

// newNursery returns the nursery for configs, whose defaults are filled in, or nil if none of them needs one. The page has a
// slot for each instance that may come to be, where its calls are counted by callee, and one for each app of this process, so
// that children see how busy that is.
func newNursery(configs []App) (*nursery, error) {
	n := &nursery{table: tableOf(configs), slots: make(map[string]span), calls: make(map[string]int)}
	total, calls, needed := 0, 0, false
	for i := range configs {
		c, slots := &configs[i], 1
		if c.Isolation == OwnProcess {
			needed, slots = true, maxProcesses
			n.calls[c.Name] = calls
			calls += maxProcesses * len(c.Calls)
		}
		n.slots[c.Name] = span{total, slots}
		total += slots
	}
	if !needed {
		return nil, nil //nolint:nilnil // there need not be one
	}
	var err error
	if n.page, err = page.Create(total, calls); err != nil {
		return nil, fmt.Errorf("watt: the memory that processes share: %w", err)
	}
	n.starter = process.NewStarter()
	return n, nil
}

// close ends what has raised the children. They have ended.
func (n *nursery) close() {
	if n != nil {
		n.starter.Close()
		_ = n.page.Close()
	}
}

// slot returns the page's place of one instance.
func (n *nursery) slot(app string, instance int) *page.Slot {
	return n.page.Slot(n.slots[app].First + instance)
}

// callsOf returns what one instance counts its calls of a callee in, which is the i-th that its app names.
func (n *nursery) callsOf(a *app, instance, i int) *count.Calls {
	return n.page.Calls(n.calls[a.name] + instance*len(a.conf().Calls) + i)
}
