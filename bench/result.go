package main

import (
	"math"
	"slices"
)

// result is what a case has given, as -json prints it.
type result struct {
	Case  string             `json:"case"`
	Unit  string             `json:"unit"`
	Watt  *float64           `json:"watt,omitempty"`
	Peers map[string]float64 `json:"peers,omitempty"`
	Floor map[string]float64 `json:"floor,omitempty"`
	// Timed are the contenders where what waits can be given a time limit.
	Timed  []string           `json:"timed,omitempty"`
	Allocs map[string]float64 `json:"allocs,omitempty"`
	Also   []also             `json:"also,omitempty"`
	Bars   []verdict          `json:"bars,omitempty"`

	benchmark benchmark
	values    map[string]float64 // by contender
}

// also is a further figure of a case, by contender.
type also struct {
	Name    string             `json:"name"`
	Unit    string             `json:"unit"`
	Figures map[string]float64 `json:"figures"`
}

// result makes the medians of the samples, which are in the contenders' order, and holds the bars
// against them.
func (b benchmark) result(samples [][]sample) *result {
	r := &result{Case: b.name, Unit: b.unit, benchmark: b}
	r.values = medians(b.contenders, samples, func(s sample) float64 { return s.value })
	r.Allocs = medians(b.contenders, samples, func(s sample) float64 { return s.allocs })
	for i, f := range b.also {
		figures := medians(b.contenders, samples, func(s sample) float64 { return s.also[i] })
		r.Also = append(r.Also, also{Name: f.name, Unit: f.unit, Figures: figures})
	}
	r.Peers, r.Floor = map[string]float64{}, map[string]float64{}
	for _, c := range b.contenders {
		v, known := r.values[c.name]
		switch {
		case !known:
		case c.name == watt:
			r.Watt = &v
		case c.floor:
			r.Floor[c.name] = v
		default:
			r.Peers[c.name] = v
		}
		if c.timed {
			r.Timed = append(r.Timed, c.name)
		}
	}
	for _, bar := range b.bars {
		if v, ok := bar.judge(r); ok {
			r.Bars = append(r.Bars, v)
		}
	}
	return r
}

// medians returns the median of what get gives for each contender, without those that have none.
func medians(contenders []contender, samples [][]sample, get func(sample) float64) map[string]float64 {
	all := make(map[string]float64)
	for i, c := range contenders {
		var values []float64
		for _, s := range samples[i] {
			if v := get(s); !math.IsNaN(v) {
				values = append(values, v)
			}
		}
		if len(values) > 0 {
			all[c.name] = round(median(values))
		}
	}
	return all
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// round keeps what a reader can use: two decimals of small numbers, none of large ones.
func round(v float64) float64 {
	if v >= 1000 {
		return math.Round(v)
	}
	return math.Round(v*100) / 100
}

// best returns the best figure of the peers that keep accepts.
func (r *result) best(keep func(contender) bool) (name string, value float64) {
	for _, c := range r.benchmark.contenders {
		v, known := r.values[c.name]
		if !known || c.name == watt || c.floor || !keep(c) {
			continue
		}
		if name == "" || v < value != r.benchmark.more {
			name, value = c.name, v
		}
	}
	return name, value
}
