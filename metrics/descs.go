package metrics

import "github.com/prometheus/client_golang/prometheus"

// all are the descriptions of all metrics, in the order in which they stand below.
var all []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	all = append(all, d)
	return d
}

const (
	app      = "watt_app"
	instance = "watt_instance"
	caller   = "watt_caller"
)

// Of an app.
var (
	info = describe("watt_app_info",
		"Always 1; the labels say what kind of app it is.", app, "profile", "isolation")
	saturation = describe("watt_app_saturation_ratio",
		"How much of what the app can do it has to do, by its profile's scaling signal: 1 is all.", app)
	workers = describe("watt_workers",
		"Workers of all instances.", app)
	workersBusy = describe("watt_workers_busy",
		"Workers that serve a request now.", app)
	busySeconds = describe("watt_worker_busy_seconds_total",
		"Time that workers were busy, together.", app)
	downstreamSeconds = describe("watt_worker_downstream_seconds_total",
		"The part of that time during which they waited for other apps.", app)
	queueCapacity = describe("watt_queue_capacity",
		"How many requests may wait for a worker, for each instance in a process of its own, or for all in this one.", app)
	queueLength = describe("watt_queue_length",
		"Requests that wait for a worker now.", app)
	overloaded = describe("watt_overloaded",
		"1 while the queue has not been empty for 100 ms.", app)
	admitted = describe("watt_requests_admitted_total",
		"Requests that got a worker.", app)
	shed = describe("watt_requests_shed_total",
		"Requests that got none, by reason.", app, "reason")
	abandoned = describe("watt_abandoned_total",
		"Handlers and instances that did not end when they had to.", app)
	connections = describe("watt_connections",
		"Connections and long-lived requests, by kind; public ones include idle ones.", app, "kind")
)

// Of an instance.
var (
	up = describe("watt_instance_up",
		"1 if the instance is ready.", app, instance)
	state = describe("watt_instance_state",
		"1 for the state that the instance is in, 0 for the others.", app, instance, "state")
	stateSince = describe("watt_instance_state_timestamp_seconds",
		"When that state began.", app, instance)
	generation = describe("watt_instance_generation",
		"Which life of the instance this is; 1 is the first.", app, instance)
	restarts = describe("watt_instance_restarts_total",
		"Restarts by cause.", app, instance, "cause")
	instanceWorkers = describe("watt_instance_workers",
		"Workers of the instance.", app, instance)
	instanceBusy = describe("watt_instance_workers_busy",
		"Workers of the instance that serve a request now.", app, instance)
	cpuSeconds = describe("watt_instance_cpu_seconds_total",
		"Processor time of the instance's process, if it has one of its own, since that started.", app, instance)
	memoryBytes = describe("watt_instance_resident_memory_bytes",
		"Memory of the instance's process, if it has one of its own.", app, instance)
	requests = describe("watt_requests_total",
		"Requests that are over, by method and class of status.", app, instance, "method", "status")
	duration = describe("watt_request_duration_seconds",
		"Time from a request's arrival until its handler has returned; long-lived ones are left out.", app, instance)
	queueWait = describe("watt_queue_wait_seconds",
		"The part of it before there was a worker.", app, instance)
	responseBytes = describe("watt_response_bytes_total",
		"Bytes of answers' bodies.", app, instance)
	panics = describe("watt_panics_total",
		"Handlers that have panicked.", app, instance)
	handedOver = describe("watt_requests_handed_over_total",
		"Requests that an idle sibling has served instead.", app, instance)
)

// Of a public listener.
var (
	accepted = describe("watt_listener_accepted_total",
		"Connections accepted.", app, instance)
	backlog = describe("watt_listener_backlog",
		"Connections that wait to be accepted now.", app, instance)
	chosen = describe("watt_listener_chosen",
		"1 if new connections get there.", app, instance)
)

// Of one app's calls of another: watt_caller's of watt_app.
var (
	callDuration = describe("watt_call_duration_seconds",
		"Time that calls took to the end of their answers, failed ones included.", app, caller)
	callErrors = describe("watt_call_errors_total",
		"Calls that have failed, by kind; whatever was answered is no failure.", app, caller, "kind")
	callSent = describe("watt_call_sent_bytes_total",
		"Bytes of requests' bodies whose length was known.", app, caller)
	callReceived = describe("watt_call_received_bytes_total",
		"Bytes of answers' bodies.", app, caller)
)
