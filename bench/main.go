// Command bench measures watt against what people would use instead.
//
//	go run ./bench                 every case
//	go run ./bench mesh pipe/dial  the cases whose names start so
//	go run ./bench -json mesh      one JSON object a line
//	go run ./bench -check          exit status 1 if a bar is missed
//
// The contenders of a case do the same work, verify every answer, and take turns within each round;
// the median of the rounds counts. README.md tells how to read the figures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

func main() {
	if play() {
		return
	}
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errMissed):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

// errMissed means that -check was given and that a bar was not met.
var errMissed = errors.New("missed")

// benchmarks are all cases, in the order in which they run. Each group has a file of its own.
func benchmarks(cfg config) []benchmark {
	return slices.Concat(
		pipeBenchmarks(cfg),
		meshBenchmarks(cfg),
		admissionBenchmarks(),
		overloadBenchmarks(),
		scaleBenchmarks(cfg),
		pyramidBenchmarks(),
		processBenchmarks(cfg),
		funnelBenchmarks(cfg),
		observeBenchmarks(),
	)
}

// options are what the command line says.
type options struct {
	config
	json, check bool
	profile     string
	prefixes    []string
}

func parse(args []string, messages io.Writer) (options, error) {
	o := options{config: defaults()}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprintln(messages, "usage: bench [flags] [prefix of a case's name ...]")
		flags.PrintDefaults()
	}
	flags.IntVar(&o.rounds, "rounds", o.rounds, "how often each contender is measured; the median counts")
	flags.DurationVar(&o.time, "time", o.time, "how long each contender is measured in each round")
	flags.StringVar(&o.only, "only", "", "measure this `contender` only")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile to this `file`")
	flags.BoolVar(&o.json, "json", false, "print one JSON object a line instead of tables")
	flags.BoolVar(&o.check, "check", false, "exit with status 1 if a bar is missed")
	for { // flags may stand behind prefixes too
		if err := flags.Parse(args); err != nil {
			return o, err
		}
		if flags.NArg() == 0 {
			break
		}
		o.prefixes = append(o.prefixes, flags.Arg(0))
		args = flags.Args()[1:]
	}
	if o.rounds < 1 || o.time < time.Millisecond {
		return o, errors.New("-rounds must be at least 1, -time at least 1ms")
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, messages io.Writer) (err error) {
	o, err := parse(args, messages)
	if err != nil {
		return err
	}
	chosen, err := choose(benchmarks(o.config), o.prefixes, o.only)
	if err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	show := printTable
	if o.json {
		show = printJSON
	}
	if !o.json {
		fmt.Fprintf(out, "%s/%s, %d CPUs, %s; medians of %d rounds of %v\n\n",
			runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version(), o.rounds, o.time)
	}
	return measureAll(ctx, chosen, o, func(r *result) error { return show(out, r) })
}

// measureAll shows each result as soon as it is known.
func measureAll(ctx context.Context, chosen []benchmark, o options, show func(*result) error) error {
	var missed []string
	for _, b := range chosen {
		r, err := b.run(ctx, o.config)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if err := show(r); err != nil {
			return err
		}
		for _, v := range r.Bars {
			if !v.ok() {
				missed = append(missed, b.name+" "+v.Name)
			}
		}
	}
	if o.check && len(missed) > 0 {
		return fmt.Errorf("%w: %s", errMissed, strings.Join(missed, "; "))
	}
	return nil
}

// choose returns the cases whose name has one of the prefixes, all if there are none. With only,
// each has that contender alone.
func choose(all []benchmark, prefixes []string, only string) ([]benchmark, error) {
	var chosen []benchmark
	for _, b := range all {
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(b.name, p) }) {
			continue
		}
		if only != "" {
			b.contenders = slices.DeleteFunc(slices.Clone(b.contenders), func(c contender) bool { return c.name != only })
		}
		if len(b.contenders) > 0 {
			chosen = append(chosen, b)
		}
	}
	if len(chosen) == 0 {
		var names strings.Builder
		for _, b := range all {
			names.WriteString("\n  " + b.name)
		}
		return nil, fmt.Errorf("no such case or contender; the cases are:%s", names.String())
	}
	return chosen, nil
}

func printJSON(out io.Writer, r *result) error { return json.NewEncoder(out).Encode(r) }
