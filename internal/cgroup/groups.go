package cgroup

import (
	"iter"
	"path"
	"slices"
	"strings"
)

type version int

const (
	v1 version = 1
	v2 version = 2
)

// group is a cgroup as one mounted file system shows it.
type group struct {
	version version
	mount   string // directory where the file system is mounted
	path    string // of the cgroup in it
	parent  bool   // it is some parent of the process's cgroup, because that one is out of sight
}

// upward yields the directories of the cgroup and of all its parents up to the mount's.
func (g group) upward() iter.Seq[string] {
	return func(yield func(string) bool) {
		for at := g.path; yield(path.Join(g.mount, at)) && at != "/"; {
			at = path.Dir(at)
		}
	}
}

// groups returns where the process's cgroup is to be found that a controller acts on: in every mount that shows it,
// since one may show more parents than another.
func (s system) groups(controller string) []group {
	cgroup, v := s.membership(controller)
	if cgroup == "" {
		return nil
	}
	var found []group
	for _, m := range s.mounts() {
		if !m.shows(controller, v) {
			continue
		}
		if at, ok := below(cgroup, m.root); ok {
			found = append(found, group{version: v, mount: m.point, path: at})
		} else if above(cgroup, m.root) {
			found = append(found, group{version: v, mount: m.point, path: "/", parent: true})
		}
	}
	return found
}

// membership returns the path of the process's cgroup, "" if it has none. A controller acts in the
// hierarchy of version 1 that names it, and only if none does in that of version 2.
func (s system) membership(controller string) (string, version) {
	text, _ := s.read("proc/self/cgroup")
	unified := ""
	for line := range strings.Lines(text) { // 4:cpu,cpuacct:/path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		if fields[0] == "0" {
			unified = fields[2]
		} else if hasOption(fields[1], controller) {
			return fields[2], v1
		}
	}
	return unified, v2
}

// mount is a line of mountinfo.
type mount struct {
	root    string // the directory of the file system that is seen at point
	point   string
	kind    string
	options string
}

// shows reports whether the mount shows the hierarchy in which a controller acts.
func (m mount) shows(controller string, v version) bool {
	if v == v2 {
		return m.kind == "cgroup2"
	}
	return m.kind == "cgroup" && hasOption(m.options, controller)
}

// mounts returns what this process has mounted, without what other mounts at the same place cover.
func (s system) mounts() []mount {
	text, _ := s.read("proc/self/mountinfo")
	var all []mount
	for line := range strings.Lines(text) {
		m, ok := parseMount(strings.TrimSuffix(line, "\n"))
		if !ok {
			continue
		}
		all = slices.DeleteFunc(all, func(covered mount) bool { return covered.point == m.point })
		all = append(all, m)
	}
	return all
}

// parseMount reads "36 35 98:0 /root /point rw,noatime master:1 - cgroup source rw,cpu", where any number
// of optional fields stands before the dash.
func parseMount(line string) (mount, bool) {
	place, kind, ok := strings.Cut(line, " - ")
	places, kinds := strings.Fields(place), strings.Fields(kind)
	if !ok || len(places) < 5 || len(kinds) < 3 {
		return mount{}, false
	}
	return mount{unescape(places[3]), unescape(places[4]), kinds[0], kinds[2]}, true
}

// unescape replaces what the kernel writes for blanks and backslashes in paths: \040 and the like.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

func hasOption(list, option string) bool { return slices.Contains(strings.Split(list, ","), option) }

// below returns the path of a cgroup in a mount with that root, and whether it is in there at all. Paths
// are as seen from the process's cgroup namespace: what lies outside begins with /.., and whatever is
// below a cgroup that many levels up has a name that cannot be known.
func below(cgroup, root string) (string, bool) {
	rest, ok := strings.CutPrefix(cgroup, strings.TrimSuffix(root, "/"))
	if !ok || rest != "" && rest[0] != '/' || strings.HasPrefix(rest+"/", "/../") {
		return "", false
	}
	return path.Join("/", rest), true
}

// above reports whether the root of a mount is a parent of a cgroup although the way from one to the
// other cannot be known: it lies more levels above the namespace's own cgroup.
func above(cgroup, root string) bool {
	outside, inside := levelsUp(root)
	from, _ := levelsUp(cgroup)
	return inside == "" && outside > from
}

// levelsUp counts how often a path goes up at its beginning, and returns the rest.
func levelsUp(at string) (n int, rest string) {
	for ; at == "/.." || strings.HasPrefix(at, "/../"); at = at[len("/.."):] {
		n++
	}
	return n, strings.TrimPrefix(at, "/")
}
