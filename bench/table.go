package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// printTable shows a result to people: the contenders, the best first, and how the bars were met.
func printTable(out io.Writer, r *result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", pad(r.Case), r.Unit, "allocs/op", "x best peer", "x tcp")
	_, best := r.best(func(contender) bool { return true })
	for _, c := range r.ranked() {
		v, known := r.values[c.name]
		if !known {
			continue
		}
		name := "  " + c.name
		if c.floor {
			name += " (floor)"
		}
		if c.timed {
			name += " (time limit)"
		}
		allocs := "-"
		if n, counted := r.Allocs[c.name]; counted {
			allocs = number(n)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", pad(name), number(v), allocs, times(v, best), times(v, r.values[tcp]))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := printAlso(out, r); err != nil {
		return err
	}
	for _, v := range r.Bars {
		fmt.Fprintf(out, "  %s: %s, at %s %s: %s\n", v.Name, number(v.Value), v.At, number(v.Limit), mark(v))
	}
	_, err := fmt.Fprintln(out)
	return err
}

// printAlso shows the further figures, a row each.
func printAlso(out io.Writer, r *result) error {
	if len(r.Also) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t\t", pad(""))
	for _, c := range r.benchmark.contenders {
		fmt.Fprintf(w, "%s\t", c.name)
	}
	for _, a := range r.Also {
		fmt.Fprintf(w, "\n%s\t%s\t", pad("  "+a.Name), a.Unit)
		for _, c := range r.benchmark.contenders {
			cell := "-"
			if v, known := a.Figures[c.name]; known {
				cell = number(v)
			}
			fmt.Fprintf(w, "%s\t", cell)
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// ranked returns watt, its peers from the best to the worst, and the floor.
func (r *result) ranked() []contender {
	rank := func(c contender) int {
		switch {
		case c.name == watt:
			return 0
		case c.floor:
			return 2
		default:
			return 1
		}
	}
	return slices.SortedStableFunc(slices.Values(r.benchmark.contenders), func(a, b contender) int {
		order := cmp.Compare(r.values[a.name], r.values[b.name])
		if r.benchmark.more {
			order = -order
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), order)
	})
}

// pad makes the first column as wide in all tables, and keeps tabwriter from aligning it right.
func pad(s string) string { return fmt.Sprintf("%-36s", s) }

func mark(v verdict) string {
	if v.ok() {
		return "ok"
	}
	return "MISSED"
}

func times(v, of float64) string {
	if of == 0 {
		return "-"
	}
	return strconv.FormatFloat(v/of, 'f', 2, 64)
}

// number writes 12345.6 as 12,346 and 12.346 as 12.35.
func number(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(round(v), 'f', -1, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
