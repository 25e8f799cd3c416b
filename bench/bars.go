package main

// bar is what a case has to reach.
type bar struct {
	name  string
	limit float64
	least bool // at least the limit; otherwise at most
	value quantity
}

func atMost(limit float64, name string, value quantity) bar {
	return bar{name: name, limit: limit, value: value}
}

func atLeast(limit float64, name string, value quantity) bar {
	return bar{name: name, limit: limit, value: value, least: true}
}

// verdict is a bar with the figure that was held against it.
type verdict struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`
	At    string  `json:"at"` // "most" or "least"
}

func (v verdict) ok() bool {
	if v.At == "least" {
		return v.Value >= v.Limit
	}
	return v.Value <= v.Limit
}

// judge returns no verdict if a figure is missing, as most are with -only.
func (b bar) judge(r *result) (verdict, bool) {
	v, known := b.value(r)
	at := "most"
	if b.least {
		at = "least"
	}
	return verdict{Name: b.name, Value: round(v), Limit: b.limit, At: at}, known
}

// quantity is something that a result says, if it does.
type quantity func(r *result) (float64, bool)

// valueOf is the contender's figure.
func valueOf(contender string) quantity {
	return func(r *result) (float64, bool) { v, ok := r.values[contender]; return v, ok }
}

// allocsOf is the contender's allocations for each operation.
func allocsOf(contender string) quantity {
	return func(r *result) (float64, bool) { v, ok := r.Allocs[contender]; return v, ok }
}

// bestOf is the figure of the best peer among those that keep accepts.
func bestOf(keep func(contender) bool) quantity {
	return func(r *result) (float64, bool) { name, v := r.best(keep); return v, name != "" }
}

func inMemory(c contender) bool { return c.inMemory }

func timed(c contender) bool { return c.timed }

// figureOf is a contender's further figure of that name.
func figureOf(contender, name string) quantity {
	return func(r *result) (float64, bool) {
		for _, a := range r.Also {
			if a.Name == name {
				v, ok := a.Figures[contender]
				return v, ok
			}
		}
		return 0, false
	}
}

// alsoOf is watt's further figure of that name.
func alsoOf(name string) quantity { return figureOf(watt, name) }

// greatest is the greatest of some quantities.
func greatest(of ...quantity) quantity {
	return func(r *result) (float64, bool) {
		var most float64
		for _, q := range of {
			v, ok := q(r)
			if !ok {
				return 0, false
			}
			most = max(most, v)
		}
		return most, true
	}
}

// ratio is a divided by b.
func ratio(a, b quantity) quantity {
	return func(r *result) (float64, bool) {
		x, okX := a(r)
		y, okY := b(r)
		return x / y, okX && okY && y != 0
	}
}

// difference is a without b.
func difference(a, b quantity) quantity {
	return func(r *result) (float64, bool) {
		x, okX := a(r)
		y, okY := b(r)
		return x - y, okX && okY
	}
}

// Bars that several cases have.

func vsTCP(limit float64) bar {
	return atMost(limit, "vs tcp", ratio(valueOf(watt), valueOf(tcp)))
}

func vsInMemory(limit float64) bar {
	return atMost(limit, "vs best in-memory peer", ratio(valueOf(watt), bestOf(inMemory)))
}
