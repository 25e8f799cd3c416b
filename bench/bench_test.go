package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt/watttest"
)

// TestMain lets the test binary be the servers and the children too.
func TestMain(m *testing.M) {
	if !play() {
		watttest.Main(m)
	}
}

// tiny is a configuration with which every case takes a moment.
func tiny() config {
	return config{rounds: 1, time: time.Millisecond, conns: 8, large: 128 << 10, apps: []int{1, 3}}
}

func TestEveryCaseMeasuresEveryContender(t *testing.T) {
	cfg := tiny()
	for _, b := range benchmarks(cfg) {
		t.Run(b.name, func(t *testing.T) {
			r, err := b.run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range b.contenders {
				if v, ok := r.values[c.name]; !ok || v < 0 {
					t.Errorf("%s: got %v, %v", c.name, v, ok)
				}
			}
			if got, want := len(r.Bars), len(b.bars); got != want {
				t.Errorf("got %d bars with all their figures, want %d", got, want)
			}
			checkJSON(t, r)
			checkTable(t, r)
		})
	}
}

func checkJSON(t *testing.T, r *result) {
	t.Helper()
	var out bytes.Buffer
	if err := printJSON(&out, r); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Case, Unit   string
		Watt         *float64
		Peers, Floor map[string]float64
		Bars         []struct {
			Name, At     string
			Value, Limit *float64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Fatalf("want one line of JSON, got %q, %v", out.String(), err)
	}
	if got.Case != r.Case || got.Unit == "" || got.Watt == nil {
		t.Errorf("no case, unit or figure in %s", out.String())
	}
	if got, want := 1+len(got.Peers)+len(got.Floor), len(r.benchmark.contenders); got != want {
		t.Errorf("got %d contenders, want %d, in %s", got, want, out.String())
	}
	for _, b := range got.Bars {
		if b.Name == "" || b.Value == nil || b.Limit == nil || b.At != "most" && b.At != "least" {
			t.Errorf("incomplete bar in %s", out.String())
		}
	}
}

func checkTable(t *testing.T, r *result) {
	t.Helper()
	var out bytes.Buffer
	if err := printTable(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.benchmark.contenders {
		if !strings.Contains(out.String(), c.name) {
			t.Errorf("no %s in\n%s", c.name, out.String())
		}
	}
	if got, want := strings.Count(out.String(), ": ok\n")+strings.Count(out.String(), ": MISSED\n"), len(r.Bars); got != want {
		t.Errorf("got %d bars, want %d, in\n%s", got, want, out.String())
	}
}

// contest is a case whose figures are known: watt gives them round by round.
func contest(bars ...bar) (benchmark, [][]sample) {
	b := benchmark{
		name: "a/b", unit: "ns/op", bars: bars, also: []figure{{"peak", "req/s"}},
		contenders: []contender{{name: watt}, {name: "pipe", inMemory: true}, {name: tcp}, {name: "direct", floor: true, inMemory: true}},
	}
	give := func(values ...float64) (samples []sample) {
		for _, v := range values {
			samples = append(samples, sample{value: v, allocs: math.NaN(), also: []float64{10 * v}})
		}
		return samples
	}
	return b, [][]sample{give(50, 3, 4), give(8, 8, 8), give(16, 15, 17), give(1, 1, 1)}
}

func TestBarsAreComputedFromTheMedians(t *testing.T) {
	b, samples := contest(
		vsTCP(0.3), vsInMemory(0.5), vsInMemory(0.49), atLeast(40, "peak", alsoOf("peak")), atLeast(41, "peak", alsoOf("peak")),
		atMost(1, "unknown", valueOf("nobody")), atMost(0, "uncounted", allocsOf(watt)),
		atMost(8, "greatest", greatest(valueOf(watt), valueOf("pipe"), valueOf("direct"))),
		atMost(11, "difference", difference(valueOf(tcp), figureOf(watt, "peak"))),
	)
	r := b.result(samples)
	want := []verdict{
		{"vs tcp", 0.25, 0.3, "most"},
		{"vs best in-memory peer", 0.5, 0.5, "most"},
		{"vs best in-memory peer", 0.5, 0.49, "most"},
		{"peak", 40, 40, "least"},
		{"peak", 40, 41, "least"},
		{"greatest", 8, 8, "most"},
		{"difference", -24, 11, "most"},
	}
	if len(r.Bars) != len(want) {
		t.Fatalf("got %v, want %v", r.Bars, want)
	}
	for i, met := range []bool{true, true, false, true, false, true, true} {
		if got := r.Bars[i]; got != want[i] || got.ok() != met {
			t.Errorf("got %v, %v, want %v, %v", got, got.ok(), want[i], met)
		}
	}
}

// A machine's mood changes with time: all contenders have to see all of it, and none always comes first.
func TestContendersTakeTurnsAndAnotherOneBeginsEachRound(t *testing.T) {
	var turns strings.Builder
	b, _ := contest()
	b.also, b.contenders = nil, nil
	for _, name := range []string{watt, "pipe", tcp} {
		b.contenders = append(b.contenders, contender{name: name, start: func(context.Context) (session, error) {
			return session{func(_ context.Context, d time.Duration) (sample, error) {
				fmt.Fprintf(&turns, "%s %v, ", name, d)
				return sample{}, nil
			}, func() {}}, nil
		}})
	}
	if _, err := b.run(t.Context(), config{rounds: 3, time: 4}); err != nil {
		t.Fatal(err)
	}
	want := "watt 1ns, pipe 1ns, tcp 1ns, " + // to warm up
		"watt 4ns, pipe 4ns, tcp 4ns, " + "pipe 4ns, tcp 4ns, watt 4ns, " + "tcp 4ns, watt 4ns, pipe 4ns, "
	if got := turns.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheTableShowsTheRatiosToTheBestAndToTCP(t *testing.T) {
	b, samples := contest(vsTCP(0.3))
	var out bytes.Buffer
	if err := printTable(&out, b.result(samples)); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		"a/b ns/op allocs/op x best peer x tcp", "watt 4 - 0.50 0.25", "pipe 8 - 1.00 0.50", "tcp 16 - 2.00 1.00", "direct (floor) 1 - 0.12 0.06",
		"vs tcp: 0.25, at most 0.3: ok",
	} {
		if !slices.Contains(rows, want) {
			t.Errorf("no row %q in\n%s", want, out.String())
		}
	}
}

// Whoever reads the JSON knows the fields by these names, and in this spelling.
func TestJSONHasItsFields(t *testing.T) {
	b, samples := contest(vsTCP(0.3))
	var out bytes.Buffer
	if err := printJSON(&out, b.result(samples)); err != nil {
		t.Fatal(err)
	}
	want := `{"case":"a/b","unit":"ns/op","watt":4,"peers":{"pipe":8,"tcp":16},"floor":{"direct":1},` +
		`"also":[{"name":"peak","unit":"req/s","figures":{"direct":10,"pipe":80,"tcp":160,"watt":40}}],` +
		`"bars":[{"name":"vs tcp","value":0.25,"limit":0.3,"at":"most"}]}` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A bar that is lowered is a decision, and not a slip.
func TestBarsAreTheOnesThatWereSet(t *testing.T) {
	want := map[string]string{
		"mesh/get-small/c=32":   "most 0.3, most 0.75",
		"mesh/get-small/c=1":    "most 0.35, most 0.8",
		"mesh/fanout-3/c=32":    "most 0.32",
		"mesh/get-1MiB/c=32":    "most 0.12, most 1.1",
		"pipe/pingpong":         "most 0.6",
		"pipe/throughput-1MiB":  "most 1",
		"pipe/idle-bytes":       "most 1024",
		"admission/uncontended": "most 100, most 0, most 1",
		"overload/goodput":      "least 0.9, most 100",
		"scale/apps":            "most 1000, most 65536, most 1.3",
		"pyramid/compose-3":     "least 2.5, most 0.5, most 0.35",
		"pyramid/proxy":         "most 0.7, most 0.25",
		"pyramid/compose-cost":  "most 15000, most 60",
	}
	for _, b := range benchmarks(defaults()) {
		bars := make([]string, len(b.bars))
		for i, bar := range b.bars {
			at := "most"
			if bar.least {
				at = "least"
			}
			bars[i] = fmt.Sprint(at, " ", bar.limit)
		}
		if set, ok := want[b.name]; ok && strings.Join(bars, ", ") != set {
			t.Errorf("%s: got %s, want %s", b.name, strings.Join(bars, ", "), set)
		}
		delete(want, b.name)
	}
	for name := range want {
		t.Errorf("there is no case %s", name)
	}
}

// as says what a contender counts as: * in memory, ! where what waits has a time limit, and ^ a floor.
func (c contender) as() string {
	switch {
	case c.inMemory:
		return c.name + "*"
	case c.timed:
		return c.name + "!"
	case c.floor:
		return c.name + "^"
	}
	return c.name
}

// A contender that is left out, or counts as something else, is a decision too: the best of those that stay may be easier
// to beat. So is what all of them are given to do.
func TestContendersAreTheOnesThatWereSet(t *testing.T) {
	const peers = " netpipe* bufconn* fasthttputil* tcp unix"
	const wires = "watt*" + peers
	want := map[string]string{
		"pipe/pingpong": wires, "pipe/throughput-1MiB": wires, "pipe/dial": wires, "pipe/idle-bytes": wires,
		"admission/uncontended": "watt! semaphore channel chi! failsafe! ants pond",
		"admission/contended":   "watt! semaphore channel chi! failsafe! ants pond",
		"overload/goodput":      "watt semaphore chi",
		"pyramid/compose-3":     "watt processes",
	}
	for _, c := range []string{"/c=1", "/c=32"} {
		want["mesh/get-small"+c] = "watt" + peers + " direct^"
		want["mesh/get-1MiB"+c] = "watt" + peers + " direct^"
		want["mesh/post-1MiB"+c] = "watt netpipe* fasthttputil* tcp unix direct^" // see meshBenchmarks
		want["mesh/fanout-3"+c] = "watt" + peers + " direct^"
	}
	for _, b := range benchmarks(defaults()) {
		names := make([]string, len(b.contenders))
		for i, c := range b.contenders {
			names[i] = c.as()
		}
		if set, ok := want[b.name]; ok && strings.Join(names, " ") != set {
			t.Errorf("%s: got %s, want %s", b.name, strings.Join(names, " "), set)
		}
		delete(want, b.name)
	}
	for name := range want {
		t.Errorf("there is no case %s", name)
	}
	d := defaults()
	set := fmt.Sprint(loads(), d.apps, d.conns, d.large, slots, serviceTime, giveUp, len(hosts()))
	if got, want := set, "[0.5 1 2 4] [1 10 100 1000] 10000 1048576 4 5ms 250ms 3"; got != want {
		t.Errorf("got the loads, numbers of apps and of connections, bytes, workers, times and servers %s, want %s", got, want)
	}
}

func TestAllContendersAreCalledByAsManyAtOnce(t *testing.T) {
	small := document(600)
	for _, c := range []int64{1, 32} {
		var entered, inside atomic.Int64
		var more atomic.Bool
		var all chan struct{} // closed when c have entered
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if inside.Add(1) > c {
				more.Store(true)
			}
			defer inside.Add(-1)
			if entered.Add(1) == c {
				close(all)
			}
			select {
			case <-all:
			case <-r.Context().Done():
			}
			answer(small, "application/json").ServeHTTP(w, r)
		})
		for _, contender := range callers(connectHandlers, h, func(s send) op { return get(s, url("orders"), small) }, int(c)) {
			entered.Store(0)
			all = make(chan struct{})
			s, err := contender.start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.measure(t.Context(), time.Millisecond); err != nil || more.Swap(false) {
				t.Errorf("%s: got %v, or more than %d at once", contender.name, err, c) // an error means fewer: they wait
			}
			s.close()
		}
	}
}

func TestCheckTellsWhatWasMissed(t *testing.T) {
	for _, limit := range []float64{1e9, -1} {
		b, _ := contest(atMost(limit, "limit", valueOf(watt)))
		b.also, b.contenders = nil, []contender{{name: watt, start: pipeBenchmarks(tiny())[0].contenders[0].start}}
		show := func(*result) error { return nil }
		err := measureAll(t.Context(), []benchmark{b}, options{config: tiny(), check: true}, show)
		if got, want := errors.Is(err, errMissed), limit < 0; got != want {
			t.Errorf("limit %v: got %v", limit, err)
		}
		if err := measureAll(t.Context(), []benchmark{b}, options{config: tiny()}, show); err != nil {
			t.Errorf("without -check: %v", err)
		}
	}
}

func TestAWrongAnswerIsAnError(t *testing.T) {
	small := document(600)
	s := record(answer(document(601), "application/json"))
	refusing := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write(small)
	})
	for name, o := range map[string]op{
		"body":   get(s, url("orders"), small),
		"length": post(s, url("orders"), small),
		"status": get(record(refusing), url("orders"), small),
		"url":    get(record(count()), "http://%zz", small),
	} {
		if err := o(t.Context()); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

func TestAFanOutCallsEachServer(t *testing.T) {
	small := document(600)
	called := make(chan string, 10)
	fan := fanOut(func(req *http.Request) (*http.Response, error) {
		called <- req.URL.Host
		return record(answer(small, "application/json"))(req)
	}, small)
	if err := fan(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(called)
	var got []string
	for host := range called {
		got = append(got, host)
	}
	slices.Sort(got)
	if want := []string{"orders.watt.local", "stock.watt.local", "users.watt.local"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCommandLine(t *testing.T) {
	var out bytes.Buffer
	profile := t.TempDir() + "/cpu.prof"
	args := []string{"pipe/ping", "-json", "-rounds", "2", "pipe/dial", "-time", "1ms", "-only", watt, "-cpuprofile", profile}
	if err := run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"case":"pipe/pingpong"`) || !strings.Contains(lines[1], `"case":"pipe/dial"`) {
		t.Errorf("got %s", out.String())
	}
	if strings.Contains(out.String(), tcp) || strings.Contains(out.String(), "bars") {
		t.Errorf("want watt only, got %s", out.String())
	}
	for _, args := range [][]string{{"nothing"}, {"pingpong"}, {"-only", "nobody"}, {"-rounds", "0"}, {"-nonsense"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: want an error", args)
		}
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want the help", err)
	}
}

// README.md holds the latest table.
func TestTheLatestTableHasEveryCase(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "## Latest run")
	for _, b := range benchmarks(defaults()) {
		if !strings.Contains(table, "\n  "+b.name+" ") {
			t.Errorf("no %s in the table", b.name)
		}
	}
}

func TestNumbersAreReadable(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.256: "0.26", 12.5: "12.5", 999.994: "999.99", 1000: "1,000", 1234567.8: "1,234,568"} {
		if got := number(v); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
