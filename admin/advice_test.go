package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
)

// app is an app with two instances of four workers, which change changes.
func app(change func(*admin.App)) admin.App {
	a := admin.App{Status: watt.Status{
		App: watt.App{Name: "orders", Profile: watt.Domain, Workers: 4, Queue: 64, Calls: []string{"store"}},
		PerInstance: []watt.InstanceStatus{
			{Instance: 0, State: "ready", Generation: 1}, {Instance: 1, State: "ready", Generation: 1},
		},
	}}
	change(&a)
	return a
}

// busy are the figures of an app with that utilisation.
func busy(utilisation float64) admin.Figures {
	return admin.Figures{Requests: 100, P50: 0.05, P99: 0.2, Service: 0.05, Utilisation: utilisation, Downstream: 0.1 * utilisation}
}

func TestAdvice(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const idle, none = 1.0, 0.0
	for _, test := range []struct {
		name  string
		idle  float64
		app   func(*admin.App)
		kinds string
		has   []string
	}{
		{"all is well", idle, func(a *admin.App) { a.Now = busy(0.5) }, "", nil},
		{"nothing happens", idle, func(a *admin.App) {}, "", nil},
		{"busy, but nobody waits", idle, func(a *admin.App) { a.Now = busy(0.95) }, "", nil},
		{"requests wait, but not for workers", idle, func(a *admin.App) { a.Now = busy(0.5); a.Now.Wait99 = 0.5 }, "", nil},

		{
			"too few workers", idle, func(a *admin.App) { a.Now = busy(0.95); a.Now.Wait99 = 0.3 }, "raise",
			[]string{"its 2 instances with 4 workers each are busy 95 % of the time, requests wait 300ms (p99), and this program leaves 1 of 2 processors idle: raise Workers of each from 4 to 6"},
		},
		{
			"too few workers of the only instance", idle, func(a *admin.App) {
				a.PerInstance, a.Now = a.PerInstance[:1], busy(0.95)
				a.Now.Wait99 = 0.3
			}, "raise", []string{"its 4 workers are busy", "raise Workers from 4 to 6"},
		},
		{
			"too few workers, since an instance is away", idle, func(a *admin.App) {
				a.PerInstance[0].State, a.Workers, a.Now = "drained", 1, busy(1)
				a.Now.Wait99 = 0.3
			}, "raise", []string{"its only worker is busy", "raise Workers of each from 1 to 2"},
		},
		{
			"a CPU app with too few instances", idle, func(a *admin.App) {
				a.Profile, a.PerInstance, a.Workers, a.Now = watt.CPUBound, a.PerInstance[:1], 1, busy(1)
				a.Now.Wait99, a.Now.CPU = 0.3, 1
			}, "raise", []string{"raise Instances from 1 to 2"},
		},
		{
			"a CPU app with as many as there are processors", idle, func(a *admin.App) {
				a.Profile, a.Workers, a.Now = watt.CPUBound, 1, busy(1)
				a.Now.Wait99 = 0.3
			}, "processors", []string{"its 2 instances with one worker each", "one for each of 2 processors"},
		},
		{"far too few", idle, func(a *admin.App) { a.Now = busy(1); a.Now.Shed = 300 }, "raise", []string{"of the time, 300/s are shed, and", "from 4 to 8"}},
		{
			"nobody is served", 1.9, func(a *admin.App) { a.Now = busy(1); a.Now.Requests, a.Now.Shed, a.Now.Seconds = 0, 30, 10 }, "hangs",
			[]string{"30/s are shed; of its requests, none has come to a good end in 10 s: more workers would hang as well, and a goroutine profile shows where these do"},
		},
		{"nobody is served yet", 1.9, func(a *admin.App) { a.Now = busy(1); a.Now.Requests, a.Now.Shed, a.Now.Seconds = 0, 30, 3 }, "raise", nil},
		{"no processors left", none, func(a *admin.App) { a.Now = busy(1); a.Now.Wait99 = 0.3 }, "processors", []string{"this program uses all of its 2 processors"}},
		{
			"it waits for others", idle, func(a *admin.App) { a.Now = busy(1); a.Now.Wait99 = 0.3; a.Now.Downstream = 0.9 }, "downstream",
			[]string{"90 % of that time they wait for something that is no app"},
		},

		{
			"many at a time", idle, func(a *admin.App) { a.Now = busy(0.1); a.Now.Shed = 30 }, "bursts",
			[]string{"its 2 instances with 4 workers each are busy 10 % of the time, but 30/s are shed: they come many at a time, more than Workers and Queue (4 and 64) take, or their deadlines are too near"},
		},
		{
			"too many streams", idle, func(a *admin.App) {
				a.Now, a.Conns, a.MaxConns = busy(0.1), 8, 8
				a.Now.ConnsShed, a.Now.Errors = 3, 3
			}, "connections",
			[]string{"8 streams, upgraded and raw connections are open, and 3/s are refused: raise MaxConns from 8, or see who keeps them"},
		},
		{"as many streams as there may be", idle, func(a *admin.App) { a.Now, a.Conns, a.MaxConns = busy(0.1), 8, 8 }, "", nil},
		{"now and then one too many", idle, func(a *admin.App) { a.Now = busy(0.1); a.Now.Shed = 0.9 }, "", nil},
		{"many at a time, just now", idle, func(a *admin.App) { a.Now = busy(0.1); a.Now.Shed, a.Overloaded = 30, true }, "", nil},

		{"the last increase has brought latency", idle, func(a *admin.App) {
			a.Now, a.BeforeWorkers = busy(1), 4
			a.Now.Wait99, a.Now.Service = 0.3, 0.1
			before := busy(1)
			a.Before = &before
		}, "backend", []string{"the backend is the limit", "8 workers instead of 4", "for 100ms instead of 50ms"}},
		{"the last increase has brought requests", idle, func(a *admin.App) {
			a.Now, a.BeforeWorkers = busy(1), 4
			a.Now.Wait99, a.Now.Requests = 0.3, 200
			before := busy(1)
			a.Before = &before
		}, "raise", nil},
		{"the last increase has brought requests and latency", idle, func(a *admin.App) {
			a.Now, a.BeforeWorkers = busy(1), 4
			a.Now.Wait99, a.Now.Requests, a.Now.Service = 0.3, 200, 0.1
			before := busy(1)
			a.Before = &before
		}, "raise", nil},
		{"the last increase has brought nothing yet", idle, func(a *admin.App) {
			a.Now, a.BeforeWorkers = busy(1), 4
			a.Now.Wait99 = 0.3
			before := busy(1)
			a.Before = &before
		}, "raise", nil},
		{"the last change was a decrease", idle, func(a *admin.App) {
			a.Now, a.BeforeWorkers = busy(1), 16
			a.Now.Wait99, a.Now.Service = 0.3, 0.1
			before := busy(1)
			a.Before = &before
		}, "raise", nil},

		{
			"an I/O app that computes in the first process", idle,
			func(a *admin.App) { a.Profile = watt.IOBound; a.Now = busy(0.5); a.Now.Sampled = 0.8 }, "burns",
			[]string{"0.8 processors"},
		},
		{"one that computes what it is for", idle, func(a *admin.App) { a.Profile = watt.CPUBound; a.Now = busy(0.5); a.Now.Sampled = 0.8 }, "", nil},
		{"an I/O app that computes", idle, func(a *admin.App) { a.Profile = watt.IOBound; a.Now = busy(0.5); a.Now.CPU = 0.8 }, "burns", []string{"0.8 processors"}},
		{"a CPU app that computes", idle, func(a *admin.App) { a.Profile = watt.CPUBound; a.Now = busy(0.5); a.Now.CPU = 1.8 }, "", nil},
		{"an I/O app that waits", idle, func(a *admin.App) { a.Profile = watt.IOBound; a.Now = busy(0.5); a.Now.CPU = 0.1 }, "", nil},

		{"logic in the entrypoint", idle, func(a *admin.App) { a.Profile = watt.Entrypoint; a.Now = busy(0.5); a.Now.Downstream = 0.15 }, "entrypoint", []string{"70 %"}},
		{
			"an entrypoint with slow clients", 1.9, func(a *admin.App) { a.Profile = watt.Entrypoint; a.Now = busy(0.5); a.Now.Downstream = 0.15 }, "entrypoint",
			[]string{"the entrypoint spends 70 % of its time neither waiting for apps behind nor computing, since this program uses only 0.1 processors: its clients are slow, or it waits for something that is no app"},
		},
		{"an entrypoint that waits", idle, func(a *admin.App) { a.Profile = watt.Entrypoint; a.Now = busy(0.5); a.Now.Downstream = 0.45 }, "", nil},
		{"an entrypoint with next to nothing to do", idle, func(a *admin.App) { a.Profile = watt.Entrypoint; a.Now = busy(0.01); a.Now.Downstream = 0 }, "", nil},
		{"logic in another app", idle, func(a *admin.App) { a.Now = busy(0.5); a.Now.Downstream = 0 }, "", nil},

		{"idle workers", idle, func(a *admin.App) { a.Workers = 32; a.Now = busy(0.05) }, "", nil},
		{
			"too many connections", idle, func(a *admin.App) { a.Profile, a.Workers, a.Peak = watt.IOBound, 64, 0.09 }, "lower",
			[]string{"its 2 instances with 64 workers each are busy 9 % of the time at most, in the last 15 minutes: lower Workers of each from 64 to 9"},
		},
		{"many connections, used at times", idle, func(a *admin.App) {
			a.Profile, a.Workers, a.Now, a.Peak = watt.IOBound, 64, busy(0.05), 0.5
		}, "", nil},
		{"few connections, hardly used", idle, func(a *admin.App) { a.Profile, a.Peak = watt.IOBound, 0.05 }, "", nil},
		{"many connections, not seen for long", idle, func(a *admin.App) { a.Profile, a.Workers, a.Now = watt.IOBound, 64, busy(0.05) }, "", nil},

		{"an instance that ends again and again", idle, func(a *admin.App) {
			a.PerInstance[1].LastError, a.Ended = "panic: no tea\nand more", map[int]int{1: 4}
		}, "restarts", []string{"instance 1 has ended 4 times in 5 minutes: panic: no tea"}},
		{"one that has, and was stopped", idle, func(a *admin.App) {
			a.PerInstance[1].State, a.Ended = "stopped", map[int]int{1: 4}
		}, "", nil},
		{"an instance that was restarted on purpose, and had ended before", idle, func(a *admin.App) {
			a.PerInstance[1] = watt.InstanceStatus{Instance: 1, State: "ready", Since: now, Restarts: map[string]uint64{"ended": 3, "asked": 1}}
		}, "", nil},
		{"an instance that was given up", idle, func(a *admin.App) {
			a.PerInstance[0] = watt.InstanceStatus{State: "failed", LastError: "exit status 1", Restarts: map[string]uint64{"start": 10}}
		}, "down", []string{"instance 0 was given up after 10 restarts, and stays down until it is restarted: exit status 1"}},
		{"a silent instance", idle, func(a *admin.App) { a.PerInstance[0] = watt.InstanceStatus{State: "silent", Since: now, PID: 4711} }, "down", []string{"no sign of life since 03:04:05: restart it, if need be after kill -QUIT 4711, which has it write to stderr what it does"}},
	} {
		r := &admin.Report{Time: now, Processors: 2, Idle: test.idle, Apps: []admin.App{app(test.app)}}
		var kinds, texts []string
		for _, a := range admin.Advise(r) {
			kinds, texts = append(kinds, a.Kind), append(texts, a.Text)
		}
		text := strings.Join(texts, "; ")
		if strings.Join(kinds, " ") != test.kinds {
			t.Errorf("%s: got %q: %s, want %q", test.name, kinds, text, test.kinds)
		}
		for _, has := range test.has {
			if !strings.Contains(text, has) {
				t.Errorf("%s: got %q, want %q in it", test.name, text, has)
			}
		}
	}
}

func TestWhoIsWaitedForIsNamed(t *testing.T) {
	waiting := func(a *admin.App) {
		a.Calls, a.Now = []string{"prices", "store"}, busy(1)
		a.Now.Wait99, a.Now.Downstream = 0.3, 0.9
	}
	callee := func(name string, does int, took float64) admin.App {
		return app(func(a *admin.App) {
			a.Name, a.Calls, a.Busy, a.Now = name, nil, does, busy(0.95)
			a.Now.CallTime = map[string]float64{"orders": took}
		})
	}
	for name, test := range map[string]struct {
		callees []admin.App
		want    string
	}{
		"one takes most of the time":           {[]admin.App{callee("prices", 4, 0.4), callee("store", 1, 6)}, "wait for store: look there"},
		"one does not answer at all":           {[]admin.App{callee("prices", 1, 0.4), callee("store", 8, 0)}, "wait for store: look there"},
		"an app that is not called is slow":    {[]admin.App{callee("prices", 1, 6), callee("others", 8, 8)}, "wait for prices: look there"},
		"what is waited for is none of theirs": {nil, "wait for something that is no app"},
	} {
		got := admin.Advise(&admin.Report{Processors: 2, Idle: 1, Apps: append(test.callees, app(waiting))})
		if len(got) != 1 || !strings.Contains(got[0].Text, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// TestWhoseCalleesHaveRoomNeedsWorkers: else nothing would ever be said of an app that does little but call others.
func TestWhoseCalleesHaveRoomNeedsWorkers(t *testing.T) {
	const look, raise = "wait for store: look there first", "they wait for store, which could do more, and this program leaves 1 of 2 processors idle: raise Workers of each from 4 to 6"
	for name, test := range map[string]struct {
		change func(orders, store, disk *admin.App)
		want   string
	}{
		"the callee has room":                 {func(_, _, _ *admin.App) {}, raise},
		"it is full":                          {func(_, store, _ *admin.App) { store.Now.Utilisation = 0.95 }, look},
		"it refuses calls":                    {func(_, store, _ *admin.App) { store.Now.Shed = 1 }, look},
		"calls wait there":                    {func(_, store, _ *admin.App) { store.Now.Wait99 = 0.1 }, look},
		"nobody knows, since it is elsewhere": {func(_, store, _ *admin.App) { store.PerInstance = nil }, look},
		"what it calls in turn is full":       {func(_, _, disk *admin.App) { disk.Now.Utilisation = 1 }, look},
		"calls do not end":                    {func(_, store, _ *admin.App) { store.Now.CallTime, store.Busy = nil, 4 }, look},
		"the last increase was in vain": {func(orders, _, _ *admin.App) {
			before := busy(1)
			orders.Before, orders.BeforeWorkers, orders.Now.Service = &before, 4, 0.1
		}, "the backend is the limit"},
		"who waits is there to compute": {
			func(orders, _, _ *admin.App) { orders.Profile, orders.Workers = watt.CPUBound, 1 },
			"they wait for store, which could do more, and this program leaves 1 of 2 processors idle: raise Workers of each from 1 to 2",
		},
		"who computes waits for one that is full": {func(orders, store, _ *admin.App) {
			orders.Profile, orders.Workers, store.Now.Utilisation = watt.CPUBound, 1, 0.95
		}, look},
	} {
		orders := app(func(a *admin.App) { a.Now = busy(1); a.Now.Wait99, a.Now.Downstream = 0.3, 0.9 })
		store := app(func(a *admin.App) {
			a.Name, a.Calls, a.Now = "store", []string{"disk"}, busy(0.5)
			a.Now.CallTime = map[string]float64{"orders": 7}
		})
		disk := app(func(a *admin.App) { a.Name, a.Calls, a.Now = "disk", nil, busy(0.5) })
		test.change(&orders, &store, &disk)
		got := admin.Advise(&admin.Report{Processors: 2, Idle: 1, Apps: []admin.App{disk, store, orders}})
		if !slices.ContainsFunc(got, func(a admin.Advice) bool { return a.App == "orders" && strings.Contains(a.Text, test.want) }) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// TestWhoFailsIsNamed: else the page would say that there is nothing to do while no request succeeds.
func TestWhoFailsIsNamed(t *testing.T) {
	const says = "it answers 40 % of its requests with 5xx, 40/s: "
	for name, test := range map[string]struct {
		change func(orders, store *admin.App)
		want   []string
	}{
		"an app":         {func(orders, _ *admin.App) { orders.Now.Errors = 40 }, []string{"orders: " + says + "its log or its metrics may say why"}},
		"the one behind": {func(orders, store *admin.App) { orders.Now.Errors, store.Now.Errors = 40, 40 }, []string{"store: " + says + "its log or its metrics may say why"}},
		"calls to elsewhere": {func(orders, store *admin.App) {
			orders.Now.Errors, store.PerInstance = 40, nil
			store.Now = admin.Figures{Calls: map[string]float64{"orders": 100}, Failed: map[string]float64{"orders": 40}}
		}, []string{"orders: " + says + "its calls of store fail, 40/s"}},
		"an app, and hardly the one behind": {func(orders, store *admin.App) { orders.Now.Errors, store.Now.Errors = 40, 2 }, []string{
			"orders: " + says + "its log or its metrics may say why", "store: it answers 2 % of its requests with 5xx, 2/s: its log or its metrics may say why",
		}},
		"the one behind, for the greater part": {func(orders, store *admin.App) { orders.Now.Errors, store.Now.Errors = 40, 25 }, []string{
			"store: it answers 25 % of its requests with 5xx, 25/s: its log or its metrics may say why",
		}},
		"since others refuse": {func(orders, store *admin.App) { orders.Now.Errors, store.Now.Shed, store.Overloaded = 40, 40, true }, nil},
		"hardly ever":         {func(orders, _ *admin.App) { orders.Now.Errors = 1 }, nil},
		"the one behind, before its workers were changed": {func(orders, store *admin.App) {
			orders.Now.Errors, orders.Now.Seconds, store.Now.Seconds = 40, 10, 3
		}, nil},
		"an app whose own workers were changed": {func(orders, store *admin.App) {
			orders.Now.Errors, orders.Now.Seconds, store.Now.Seconds = 40, 3, 10
		}, []string{"orders: " + says + "its log or its metrics may say why"}},
		"nobody": {func(_, _ *admin.App) {}, nil},
	} {
		orders := app(func(a *admin.App) { a.Name, a.Calls, a.Now = "orders", []string{"store"}, busy(0.5) })
		store := app(func(a *admin.App) { a.Name, a.Calls, a.Now = "store", nil, busy(0.5) })
		test.change(&orders, &store)
		var got []string
		for _, a := range admin.Advise(&admin.Report{Processors: 2, Idle: 1, Apps: []admin.App{orders, store}}) {
			got = append(got, a.App+": "+a.Text)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestTheMostUrgentComesFirst(t *testing.T) {
	waits := app(func(a *admin.App) { a.Name, a.Now = "waits", busy(1); a.Now.Shed, a.Now.Downstream = 1, 0.9 })
	slow := app(func(a *admin.App) { a.Name, a.Now = "slow", busy(1); a.Now.Shed = 1 })
	down := app(func(a *admin.App) { a.Name, a.PerInstance[0].State = "down", "failed" })
	var got []string
	for _, a := range admin.Advise(&admin.Report{Processors: 2, Idle: 1, Apps: []admin.App{waits, slow, down}}) {
		got = append(got, a.App)
	}
	if want := []string{"down", "slow", "waits"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
