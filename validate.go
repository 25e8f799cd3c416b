package watt

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/watt/internal/process"
)

// validate returns everything that is wrong with apps and admin, joined; each line names the app and the
// field.
func validate(apps []App, admin *http.Server) error {
	if len(apps) == 0 {
		return errors.New("watt: there are no apps")
	}
	var p problems
	names := make(map[string]bool, len(apps))
	for i := range apps {
		if names[apps[i].Name] {
			p.add(&apps[i], "Name", "two apps have this name")
		}
		names[apps[i].Name] = true
	}
	for i := range apps {
		p.check(&apps[i], names)
	}
	if admin != nil {
		if err := adminProblem(admin); err != nil {
			p = append(p, fmt.Errorf("watt: Admin: %w", err))
		}
		for _, other := range sharing(&App{Listen: admin.Addr}, apps) {
			p = append(p, fmt.Errorf("watt: Admin: Addr: %s is claimed by app %q too", admin.Addr, other))
		}
	}
	for i := range apps {
		for _, other := range sharing(&apps[i], apps[:i]) {
			p.add(&apps[i], "Listen", fmt.Sprintf("%s is claimed by app %q too", apps[i].Listen, other))
		}
	}
	for _, cycle := range cycles(apps) {
		p.add(&App{Name: cycle[0]}, "Calls", "goes round in a circle: "+strings.Join(cycle, " → "))
	}
	return errors.Join(p...)
}

// adminProblem returns what is wrong with the address of Runtime.Admin. Its handler may have an opinion.
func adminProblem(admin *http.Server) error {
	if admin.Addr == "" {
		return errors.New("Addr is not set")
	}
	if h, ok := admin.Handler.(interface{ CheckAddr(addr string) error }); ok {
		if err := h.CheckAddr(admin.Addr); err != nil {
			return fmt.Errorf("%s: %w", admin.Addr, err)
		}
	}
	return nil
}

// problems are what is wrong with a configuration.
type problems []error

// add notes a problem with a field of a, if there is one.
func (p *problems) add(a *App, field, problem string) {
	if problem != "" {
		*p = append(*p, fmt.Errorf("watt: app %q: %s: %s", a.Name, field, problem))
	}
}

// check notes what is wrong with a by itself, and with the names that it calls.
func (p *problems) check(a *App, names map[string]bool) {
	p.add(a, "Name", nameProblem(a.Name))
	p.add(a, "Handler, New, Serve", runProblem(a))
	p.add(a, "URL", urlProblem(a.URL))
	p.add(a, "Listen", listenProblem(a.Listen))
	p.add(a, "TLS", tlsProblem(a))
	p.add(a, "Profile", enumProblem(int(a.Profile), int(IOBound)))
	p.add(a, "Isolation", isolationProblem(a))
	if filled := a.withDefaults(); (a.MemoryLimit != 0 || a.Nice != 0) && filled.Isolation != OwnProcess && !a.insideForTest() {
		p.add(a, "MemoryLimit, Nice", "these need processes of their own: set them to 0, or Isolation to OwnProcess")
	}
	if a.MemoryLimit != 0 && a.MemoryLimit < leastMemory {
		p.add(a, "MemoryLimit", "must be 128 MiB at least: Go and its threads reserve that much before they do anything")
	}
	p.add(a, "Nice", rangeProblem(int64(a.Nice), 0, maxNice))
	p.checkLimits(a)
	for _, callee := range a.Calls {
		if !names[callee] {
			p.add(a, "Calls", fmt.Sprintf("there is no app %q: there are %s", callee, listed(slices.Collect(maps.Keys(names)))))
		}
	}
}

func nameProblem(s string) string {
	const want = "use lower-case letters, digits and inner hyphens, at most 63"
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return want
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return want
		}
	}
	return ""
}

func runProblem(a *App) string {
	n := 0
	for _, set := range []bool{a.Handler != nil, a.New != nil, a.Serve != nil} {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return "more than one is set"
	case n == 0 && a.URL == "":
		return "none is set, and no URL"
	}
	return ""
}

func urlProblem(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return err.Error() + "; give one absolute http or https URL"
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return fmt.Sprintf("%q is not one absolute http or https URL (several, or names to balance over, are not supported yet)", s)
	case u.RawQuery != "", u.Fragment != "", u.User != nil:
		return fmt.Sprintf("%q: a base URL has no query, fragment or user", s)
	}
	if _, mesh := AppOf(u.Host); mesh {
		return fmt.Sprintf("%q is a name of the mesh; give the app's address elsewhere", s)
	}
	return ""
}

func listenProblem(s string) string {
	if s == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return err.Error() + "; use host:port, or :port for all hosts"
	}
	if n, err := strconv.Atoi(port); err == nil && (n < 0 || n > math.MaxUint16) {
		return fmt.Sprintf("%q: there is no port %d", s, n)
	}
	return ""
}

func readyPathProblem(s string) string {
	if s != "" && !strings.HasPrefix(s, "/") {
		return fmt.Sprintf("%q does not begin with a slash", s)
	}
	return ""
}

// tlsProblem finds the configuration with which a server starts and every handshake fails.
func tlsProblem(a *App) string {
	if t := a.TLS; t != nil && a.Listen != "" && a.URL == "" &&
		len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return "Listen needs a certificate: Certificates, GetCertificate or GetConfigForClient"
	}
	return ""
}

func isolationProblem(a *App) string {
	switch {
	case a.Isolation == OwnProcess && !process.Supported:
		return "this system does not support processes of their own; use InProcess"
	case a.Isolation == OwnProcess && inTest() && os.Getenv(testVariable) == "":
		return "in a test, processes of their own need watttest.Main in TestMain; or use InProcess"
	case a.Isolation == Remote && a.URL == "":
		return "Remote is reported only; set URL"
	}
	return enumProblem(int(a.Isolation), int(Remote))
}

// maxInstances is how many instances an app may have: what it takes to start them grows with the square of it.
const maxInstances = 1024

// instancesProblem finds more instances than there can be, or than the page has room for.
func instancesProblem(a *App) string {
	filled := a.withDefaults() // the profile may have decided on processes
	if filled.Isolation == OwnProcess && filled.Instances > maxProcesses {
		return fmt.Sprintf("at most %d can have processes of their own", maxProcesses)
	}
	return rangeProblem(int64(a.Instances), 0, maxInstances)
}

func enumProblem(v, last int) string {
	if v < 0 || v > last {
		return fmt.Sprintf("%d is not one of the constants", v)
	}
	return ""
}

// maxNice is the lowest priority that a process can have.
const maxNice = 19

// leastMemory is with how much, in bytes, a child can start, also with cgo.
const leastMemory = 128 << 20

func rangeProblem(value, least, most int64) string {
	switch {
	case value < least:
		return fmt.Sprintf("%d is out of range: use %d or more; 0 means the default", value, least)
	case value > most:
		return fmt.Sprintf("%d is out of range: use %d or less", value, most)
	}
	return ""
}

const longest = 366 * 24 * time.Hour // of all durations, which are added to one another

// checkLimits notes what is wrong with what may also change while the runtime runs: counts and durations that are below
// -1, or -1 where that makes no sense, among others.
func (p *problems) checkLimits(a *App) {
	p.add(a, "ReadyPath", readyPathProblem(a.ReadyPath))
	p.add(a, "Instances", instancesProblem(a))
	for _, f := range []struct {
		name         string
		value, least int
	}{
		{"Workers", a.Workers, 0},
		{"Queue", a.Queue, -1},
		{"MaxConns", a.MaxConns, -1},
		{"MaxRestarts", a.MaxRestarts, -1},
	} {
		p.add(a, f.name, rangeProblem(int64(f.value), int64(f.least), math.MaxInt32))
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"QueueTimeout", a.QueueTimeout},
		{"Timeout", a.Timeout},
		{"StartTimeout", a.StartTimeout},
		{"DrainTimeout", a.DrainTimeout},
	} {
		if f.value < -1 {
			p.add(a, f.name, fmt.Sprintf("%v is out of range: use -1 or more; 0 means the default", f.value))
		} else if f.value > 0 && f.value < time.Microsecond {
			p.add(a, f.name, fmt.Sprintf("%v is too short to be meant: is the unit missing?", f.value))
		} else if f.value > longest {
			p.add(a, f.name, fmt.Sprintf("%v is out of range: use a year or less", f.value))
		}
	}
}

// sharing returns the names of the apps that claim a's address too. Port 0 is never the same twice, and an address
// without a host claims its port on every host.
func sharing(a *App, apps []App) (names []string) {
	for i := range apps {
		if clash(claimed(a), claimed(&apps[i])) {
			names = append(names, apps[i].Name)
		}
	}
	return names
}

// claimed returns the host and port that a claims; no port if it claims none for itself.
func claimed(a *App) [2]string {
	host, port, err := net.SplitHostPort(a.Listen)
	if a.URL != "" || err != nil || port == "0" {
		return [2]string{}
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	return [2]string{host, port}
}

func clash(a, b [2]string) bool {
	return a[1] != "" && a[1] == b[1] && (a[0] == b[0] || a[0] == "" || b[0] == "")
}

// cycles returns the circles in Calls, each as the names along it with the first repeated at the end.
func cycles(apps []App) [][]string {
	calls := make(map[string][]string, len(apps))
	for _, a := range apps {
		calls[a.Name] = a.Calls
	}
	var found [][]string
	done := make(map[string]bool, len(apps))
	var path []string
	onPath := make(map[string]int)
	var visit func(name string)
	visit = func(name string) {
		if at, ok := onPath[name]; ok {
			found = append(found, append(append([]string(nil), path[at:]...), name))
			return
		}
		if done[name] {
			return
		}
		onPath[name] = len(path)
		path = append(path, name)
		for _, callee := range calls[name] {
			visit(callee)
		}
		path = path[:len(path)-1]
		delete(onPath, name)
		done[name] = true
	}
	for _, a := range apps {
		visit(a.Name)
	}
	return found
}
