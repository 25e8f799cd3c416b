package watt

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"go.uber.org/zap/zapcore"
)

// changeable reports whether a field of App may change while the runtime runs: it is one of the limits, or the parent's
// alone to know.
func changeable(field string) bool {
	switch field {
	case "Instances", "MaxRestarts", "Critical":
		return true
	}
	_, limit := reflect.TypeFor[limits]().FieldByName(field)
	return limit
}

// Update changes the configuration of an app. Before the start, change may set any field. While the
// runtime runs, change gets the configuration in force and may set Instances, Workers, Queue,
// QueueTimeout, MaxConns, MaxRestarts, Critical, ReadyPath and the timeouts; zero values mean the
// defaults again. More instances are started, and surplus ones drained, before Update returns: that takes
// StartTimeout or DrainTimeout at most, and ends with Shutdown. A change that is refused changes nothing. What a drain had
// to cut is returned as an error, too; the change is in force then. An app in a process of its own cannot change any.
func (rt *Runtime) Update(app string, change func(*App)) error {
	if change == nil {
		return errors.New("watt: Update: change is nil")
	}
	select {
	case rt.updating <- struct{}{}:
	case <-rt.life.Done():
		return errNotNow
	}
	defer func() { <-rt.updating }()
	p, err := rt.phaseFor("Update")
	if err != nil {
		return err
	}
	switch p {
	case phaseNew:
		return rt.reconfigure(app, change)
	case phaseRunning:
		a, err := rt.named(app)
		if err != nil {
			return err
		}
		return a.update(change)
	case phaseStarting, phaseStopping:
	}
	return errNotNow
}

// SetLevel sets Level, here and in the processes of instances. It may be called at any time, and takes 100 ms at most: one
// that does not listen follows when it does. An app in a process of its own sets that one's, until the first sets all.
func (rt *Runtime) SetLevel(level zapcore.Level) error {
	if rt.Level == nil {
		return errors.New("watt: SetLevel: Runtime.Level is not set")
	}
	rt.Level.SetLevel(level)
	var telling sync.WaitGroup
	rt.mu.Lock()
	if rt.phase == phaseStarting || rt.phase == phaseRunning { // else nobody is there, or will be soon
		for _, a := range rt.apps {
			if p, ok := a.place.(*processes); ok {
				telling.Add(1)
				rt.owned.Go(func() {
					defer telling.Done()
					p.inform()
				})
			}
		}
	}
	rt.mu.Unlock()
	telling.Wait()
	return nil
}

// named returns the app that an operator names, while the runtime runs.
func (rt *Runtime) named(name string) (*app, error) {
	if a := rt.app(name); a != nil {
		return a, nil
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return nil, rt.noSuchAppLocked(name)
}

func (rt *Runtime) noSuchAppLocked(name string) error {
	known := make([]string, len(rt.configs))
	for i, c := range rt.configs {
		known[i] = c.Name
	}
	return fmt.Errorf("%w: %q: there are %s", ErrNoSuchApp, name, listed(known))
}

var errNotNow = errors.New("watt: Update: the runtime is starting, or was told to stop")

// reconfigure changes an app before the start. The caller's code is run without the lock: it may ask for
// Status, or start the runtime.
func (rt *Runtime) reconfigure(app string, change func(*App)) error {
	rt.mu.Lock()
	i := slices.IndexFunc(rt.configs, func(c App) bool { return c.Name == app })
	if i < 0 {
		defer rt.mu.Unlock()
		return rt.noSuchAppLocked(app)
	}
	config := rt.configs[i].clone()
	rt.mu.Unlock()
	change(&config)
	config = config.clone() // change may keep its pointer
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.phase != phaseNew {
		return errNotNow
	}
	rt.configs[i] = config
	return nil
}

// update puts a new configuration into force.
func (a *app) update(change func(*App)) error {
	old := a.conf()
	changed := old.clone()
	change(&changed)
	config := changed.withDefaults() // a copy: change may keep its pointer
	if err := a.changeProblem(old, &changed); err != nil {
		return err
	}
	if changed.Workers == 0 {
		a.rt.share(&config)
	}
	a.adopt(&config)
	if a.elsewhere() {
		return nil
	}
	if err := a.shrink(config.Instances); err != nil {
		return err // what the drain had to cut
	}
	if err := a.grow(a.rt.life, config.Instances); err != nil {
		a.adopt(old)
		return errors.Join(fmt.Errorf("watt: app %q: Instances: %w", a.name, err), a.shrink(old.Instances))
	}
	return nil
}

// adopt puts config's limits into force.
func (a *app) adopt(config *App) {
	a.config.Store(config)
	a.place.adopt(config)
	for _, caller := range a.callers {
		if p, ok := caller.place.(*processes); ok {
			p.inform() // of how long a call may take
		}
	}
}

// changeProblem returns what is wrong with a change while the runtime runs, or nil.
func (a *app) changeProblem(old, config *App) error {
	var p problems
	before, after := reflect.ValueOf(*old), reflect.ValueOf(*config)
	for field, was := range before.Fields() {
		if !changeable(field.Name) && !same(was, after.FieldByIndex(field.Index)) {
			p.add(old, field.Name, "cannot change while the runtime runs")
		}
	}
	named := *config
	named.Name = old.Name
	p.checkLimits(&named)
	return errors.Join(p...)
}

// same compares two values of a field: functions, maps and pointers by identity, the rest by content.
// A handler may be anything, also what Go does not compare.
func same(a, b reflect.Value) bool {
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() {
		return !a.IsValid() && !b.IsValid()
	}
	elements := func(n int, of func(reflect.Value, int) reflect.Value) bool {
		for i := range n {
			if !same(of(a, i), of(b, i)) {
				return false
			}
		}
		return true
	}
	switch a.Kind() { //nolint:exhaustive // the others can be compared
	case reflect.Interface:
		return same(a.Elem(), b.Elem())
	case reflect.Func, reflect.Map:
		return a.Pointer() == b.Pointer()
	case reflect.Slice, reflect.Array:
		return a.Len() == b.Len() && elements(a.Len(), reflect.Value.Index)
	case reflect.Struct:
		return elements(a.NumField(), reflect.Value.Field)
	}
	return a.Equal(b)
}

// Restart drains one instance of an app and replaces it by its next generation. It blocks until that
// is ready, for DrainTimeout and StartTimeout together at most, and returns the error if it cannot
// start; then it is retried as after a failure. Requests wait in the queue meanwhile, or go to other
// instances. An instance that had been given up, or drained, gets a new chance. A handler of the instance waits
// for its own request, as with Shutdown. An app in a process of its own cannot restart any.
func (rt *Runtime) Restart(app string, instance int) error {
	return rt.askInstance("Restart", app, instance, false)
}

// Drain drains one instance of an app and leaves it out, "drained", until Restart brings it back: to look at what it has
// left, or at how the others do without it. It blocks until that is done, for DrainTimeout at most, and returns what was
// cut. Requests go to other instances; if there are none, they are refused as soon as their wait is over, and the app is
// not ready. An app in a process of its own cannot drain any.
func (rt *Runtime) Drain(app string, instance int) error {
	return rt.askInstance("Drain", app, instance, true)
}

func (rt *Runtime) askInstance(what, app string, instance int, hold bool) error {
	p, err := rt.phaseFor(what)
	if err != nil {
		return err
	}
	if p != phaseRunning {
		return fmt.Errorf("watt: %s: the runtime is not running", what)
	}
	a, err := rt.named(app)
	if err != nil {
		return err
	}
	in := a.instance(instance)
	if in == nil {
		if a.conf().URL != "" {
			return fmt.Errorf("watt: app %q runs elsewhere, and has no instances here", app)
		}
		return fmt.Errorf("watt: app %q has no instance %d", app, instance)
	}
	if err := in.ask(hold); err != nil {
		return fmt.Errorf("%s%w", whose(app, instance), err)
	}
	return nil
}
