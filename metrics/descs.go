package metrics

import "github.com/prometheus/client_golang/prometheus"

const (
	app      = "watt_app"
	instance = "watt_instance"
	caller   = "watt_caller"
)

// descs are the descriptions of all metrics.
type descs struct {
	all []*prometheus.Desc

	// Of an app.
	info, saturation, workers, workersBusy, busySeconds, downstreamSeconds, queueCapacity, queueLength, overloaded,
	admitted, shed, abandoned, connections, connectionsLimit, connectionsShed *prometheus.Desc

	// Of an instance.
	up, state, stateSince, generation, restarts, instanceWorkers, instanceBusy, cpuSeconds, memoryBytes,
	requests, duration, queueWait, responseBytes, panics, handedOver *prometheus.Desc

	// Of a public listener.
	accepted, backlog, chosen *prometheus.Desc

	// Of one app's calls of another: watt_caller's of watt_app.
	callDuration, callErrors, callSent, callReceived *prometheus.Desc
}

// describe makes a description of a metric.
func (d *descs) describe(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc(name, help, labels, nil)
	d.all = append(d.all, desc)
	return desc
}

func newDescs() *descs {
	d := new(descs)
	d.ofApps()
	d.ofInstances()
	d.ofListeners()
	d.ofCalls()
	return d
}

func (d *descs) ofApps() {
	d.info = d.describe("watt_app_info",
		"Always 1; the labels say what kind of app it is.", app, "profile", "isolation")
	d.saturation = d.describe("watt_app_saturation_ratio",
		"How much of what the app can do it has to do, by its profile's scaling signal: 1 is all.", app)
	d.workers = d.describe("watt_workers",
		"Workers of all instances.", app)
	d.workersBusy = d.describe("watt_workers_busy",
		"Workers that serve a request now.", app)
	d.busySeconds = d.describe("watt_worker_busy_seconds_total",
		"Time that workers were busy, together.", app)
	d.downstreamSeconds = d.describe("watt_worker_downstream_seconds_total",
		"The part of that time during which they waited for other apps.", app)
	d.queueCapacity = d.describe("watt_queue_capacity",
		"How many requests may wait for a worker, together of all instances.", app)
	d.queueLength = d.describe("watt_queue_length",
		"Requests that wait for a worker now.", app)
	d.overloaded = d.describe("watt_overloaded",
		"1 while the queue has not been empty for 100 ms.", app)
	d.admitted = d.describe("watt_requests_admitted_total",
		"Requests that got a worker.", app)
	d.shed = d.describe("watt_requests_shed_total",
		"Requests that got none, by reason.", app, "reason")
	d.abandoned = d.describe("watt_abandoned_total",
		"Handlers and instances that did not end when they had to.", app)
	d.connections = d.describe("watt_connections",
		"Connections and long-lived requests, by kind; public ones include idle ones.", app, "kind")
	d.connectionsLimit = d.describe("watt_connections_limit",
		"How many long-lived requests, upgraded and raw connections there may be, together of all instances.", app)
	d.connectionsShed = d.describe("watt_connections_shed_total",
		"Long-lived requests and connections that there was no room for.", app)
}

func (d *descs) ofInstances() {
	d.up = d.describe("watt_instance_up",
		"1 if the instance is ready.", app, instance)
	d.state = d.describe("watt_instance_state",
		"1 for the state that the instance is in, 0 for the others.", app, instance, "state")
	d.stateSince = d.describe("watt_instance_state_timestamp_seconds",
		"When that state began.", app, instance)
	d.generation = d.describe("watt_instance_generation",
		"Which life of the instance this is; 1 is the first.", app, instance)
	d.restarts = d.describe("watt_instance_restarts_total",
		"Restarts by cause.", app, instance, "cause")
	d.instanceWorkers = d.describe("watt_instance_workers",
		"Workers of the instance.", app, instance)
	d.instanceBusy = d.describe("watt_instance_workers_busy",
		"Workers of the instance that serve a request now.", app, instance)
	d.cpuSeconds = d.describe("watt_instance_cpu_seconds_total",
		"Processor time of the instance's process, if it has one of its own, since that started.", app, instance)
	d.memoryBytes = d.describe("watt_instance_resident_memory_bytes",
		"Memory of the instance's process, if it has one of its own.", app, instance)
	d.requests = d.describe("watt_requests_total",
		"Requests that are over, by method and class of status.", app, instance, "method", "status")
	d.duration = d.describe("watt_request_duration_seconds",
		"Time from a request's arrival until its handler has returned; long-lived ones are left out.", app, instance)
	d.queueWait = d.describe("watt_queue_wait_seconds",
		"The part of it before there was a worker.", app, instance)
	d.responseBytes = d.describe("watt_response_bytes_total",
		"Bytes of answers' bodies.", app, instance)
	d.panics = d.describe("watt_panics_total",
		"Handlers that have panicked.", app, instance)
	d.handedOver = d.describe("watt_requests_handed_over_total",
		"Requests that an idle sibling has served instead.", app, instance)
}

func (d *descs) ofListeners() {
	d.accepted = d.describe("watt_listener_accepted_total",
		"Connections accepted.", app, instance)
	d.backlog = d.describe("watt_listener_backlog",
		"Connections that wait to be accepted now.", app, instance)
	d.chosen = d.describe("watt_listener_chosen",
		"1 if new connections get there.", app, instance)
}

func (d *descs) ofCalls() {
	d.callDuration = d.describe("watt_call_duration_seconds",
		"Time that calls took to the end of their answers, failed ones included.", app, caller)
	d.callErrors = d.describe("watt_call_errors_total",
		"Calls that have failed, by kind; whatever was answered is no failure.", app, caller, "kind")
	d.callSent = d.describe("watt_call_sent_bytes_total",
		"Bytes of requests' bodies, as far as they were read or were in memory.", app, caller)
	d.callReceived = d.describe("watt_call_received_bytes_total",
		"Bytes of answers' bodies.", app, caller)
}
