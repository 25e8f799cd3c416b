package watt

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// changeable are the fields of App that may change while the runtime runs.
func changeable(field string) bool {
	switch field {
	case "Instances", "Workers", "Queue", "QueueTimeout", "MaxConns", "Timeout",
		"StartTimeout", "DrainTimeout", "MaxRestarts", "Critical", "ReadyPath":
		return true
	}
	return false
}

// Update changes the configuration of an app. Before the start, change may set any field. While the
// runtime runs, change gets the configuration in force and may set Instances, Workers, Queue,
// QueueTimeout, MaxConns, MaxRestarts, Critical, ReadyPath and the timeouts; zero values mean the
// defaults again. More instances are started, and surplus ones drained, before Update returns. A
// change that is refused changes nothing.
func (rt *Runtime) Update(app string, change func(*App)) error {
	rt.updating.Lock()
	defer rt.updating.Unlock()
	rt.mu.Lock()
	phase, apps := rt.phase, rt.apps
	if phase == phaseNew {
		defer rt.mu.Unlock()
		i := slices.IndexFunc(rt.configs, func(c App) bool { return c.Name == app })
		if i < 0 {
			return fmt.Errorf("%w: %q", ErrNoSuchApp, app)
		}
		config := rt.configs[i]
		config.Calls = slices.Clone(config.Calls)
		change(&config)
		rt.configs[i] = config
		return nil
	}
	rt.mu.Unlock()
	if phase != phaseRunning {
		return errors.New("watt: Update: the runtime is starting or shutting down")
	}
	for _, a := range apps {
		if a.name == app {
			return a.update(change)
		}
	}
	return fmt.Errorf("%w: %q", ErrNoSuchApp, app)
}

// update puts a new configuration into force.
func (a *app) update(change func(*App)) error {
	old := a.config.Load()
	config := *old
	config.Calls = slices.Clone(old.Calls)
	change(&config)
	if err := a.changeProblem(old, &config); err != nil {
		return err
	}
	config = config.withDefaults()
	a.config.Store(&config)
	a.pool.Resize(poolLimits(&config))
	a.conns.resize(config.MaxConns)
	if a.remote != nil {
		return nil
	}
	if err := a.shrink(config.Instances); err != nil {
		return err // what the drain had to cut
	}
	if err := a.grow(a.rt.life, config.Instances); err != nil {
		config.Instances = old.Instances
		a.config.Store(&config)
		return errors.Join(fmt.Errorf("watt: app %q: Instances: %w", a.name, err), a.shrink(old.Instances))
	}
	return nil
}

// changeProblem returns what is wrong with a change while the runtime runs, or nil.
func (a *app) changeProblem(old, config *App) error {
	var errs []error
	before, after := reflect.ValueOf(*old), reflect.ValueOf(*config)
	for i := range before.NumField() {
		if field := before.Type().Field(i).Name; !changeable(field) && !same(before.Field(i), after.Field(i)) {
			errs = append(errs, fmt.Errorf("watt: app %q: %s: cannot change while the runtime runs", a.name, field))
		}
	}
	checkNumbers(config, func(field, problem string) {
		errs = append(errs, fmt.Errorf("watt: app %q: %s: %s", a.name, field, problem))
	})
	return errors.Join(errs...)
}

// same compares two values of a field; functions, which Go cannot compare, by their code.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Func {
		return a.Pointer() == b.Pointer()
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// Restart drains one instance of an app and replaces it by its next generation. It blocks until that
// is ready, for DrainTimeout and StartTimeout together at most, and returns the error if it cannot
// start; then it is retried as after a failure. Requests wait in the queue meanwhile, or go to other
// instances. An instance that had been given up gets a new chance.
func (rt *Runtime) Restart(app string, instance int) error {
	rt.mu.Lock()
	phase, apps := rt.phase, rt.apps
	rt.mu.Unlock()
	if phase != phaseRunning {
		return errors.New("watt: Restart: the runtime is not running")
	}
	for _, a := range apps {
		if a.name == app {
			return a.restart(instance)
		}
	}
	return fmt.Errorf("%w: %q", ErrNoSuchApp, app)
}

func (a *app) restart(instance int) error {
	a.mu.Lock()
	if instance < 0 || instance >= len(a.instances) {
		n := len(a.instances)
		a.mu.Unlock()
		return fmt.Errorf("watt: app %q has no instance %d: it has %d in this process", a.name, instance, n)
	}
	in := a.instances[instance]
	a.mu.Unlock()
	if err := in.renew(); err != nil {
		return fmt.Errorf("watt: app %q, instance %d: %w", a.name, instance, err)
	}
	return nil
}
