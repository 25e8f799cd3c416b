package watt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"

	"github.com/org/watt/internal/control"
)

// birthVariable tells a child who it is to be.
const birthVariable = "WATT_CHILD"

// birth is who a child is to be.
type birth struct {
	Parent   int    `json:"parent"` // its process
	App      string `json:"app"`
	Instance int    `json:"instance"`
	Program  string `json:"program"` // the file that the parent runs
	Table    string `json:"table"`   // of the parent's apps, see tableOf
	Control  string `json:"control"` // its control socket, see control.ID
}

// testVariable tells that children of a test binary find their way to Run.
const testVariable = "WATT_TEST_PROCESSES"

// inTest reports whether this is a test binary.
func inTest() bool { return flag.Lookup("test.v") != nil }

// IsChild reports whether this process runs one instance, for a runtime in its parent process. Main runs again
// in such a process, up to [Runtime.Run] or [Runtime.Start], which never return there: what stands before them is
// done in every process, what comes after only in the first. So before them main should not open a database, bind a
// port or take seconds: [App.New] is the place for that. What must stand before and be done only once, main can make
// depend on IsChild.
//
// A program has one runtime with such instances, and starts it first: a child does not know which of two its parent
// means, and joins the first Run or Start that main reaches. That returns an error there if its apps differ from the
// parent's; if they do not, the child cannot tell the two apart.
//
// If main starts other processes in a child, it should do so after it has called IsChild, Run or Start: until then
// they inherit descriptor 3, which the child has from its parent.
func IsChild() bool {
	_, child := born()
	return child
}

// born returns who this process is to be, if it is a child. A process that a child starts inherits the variable, and is no
// child: it has another parent, or, as an orphan that the same one adopts, no control socket. The answer is kept, since the
// socket moves in Run.
var born = sync.OnceValues(func() (birth, bool) { //nolint:gochecknoglobals // there is one process, and one answer
	var b birth
	err := json.Unmarshal([]byte(os.Getenv(birthVariable)), &b)
	if err != nil || b.Parent != os.Getppid() || b.Control == "" || b.Control != control.ID(controlFD) {
		return birth{}, false
	}
	control.Keep(controlFD)
	return b, true
})

// variable returns b for the environment.
func (b birth) variable() string {
	text, _ := json.Marshal(b) // of numbers and strings
	return birthVariable + "=" + string(text)
}

// tableOf returns a hash of what parent and child must agree on: which apps there are, what they run and whom
// they call. Limits may differ, since they can be changed while the parent runs.
func tableOf(configs []App) string {
	hash := sha256.New()
	for i := range configs {
		c := configs[i].withDefaults()
		fmt.Fprintln(hash, c.Name, c.Handler != nil, c.New != nil, c.Serve != nil, c.URL != "", c.Calls, c.Isolation, c.Listen != "", c.TLS != nil)
	}
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16])
}
