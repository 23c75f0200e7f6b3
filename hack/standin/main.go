// Command standin stands in for gcloud, kubectl, ko, kind, docker, curl, tar and go in the tests of tools that run those: it is
// whichever of them it is called. It keeps in the folder STANDIN what there is, so that what was made is found, what is there already
// cannot be made again, and what is needed cannot be missing; refuses every command and flag that the tools have no business with;
// and writes down every command line. The file `fail` there says which of the commands that change something fails.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// world is all that there is.
type world struct {
	Changes   int                       // how many commands have changed something
	APIs      map[string]bool           // of Google Cloud's that are on
	Things    map[string]map[string]any // by kind/name
	Roles     map[string][]string       // "role member" by kind/name
	Objects   map[string]bool           // in buckets
	Kube      map[string]map[string]any // objects of the cluster, by namespace/kind/name
	Applied   map[string]bool           // addresses of releases
	Leftovers int                       // looks until what is in RabbitMQ has gone
	Leaked    []string                  // what a cluster had made and nobody removes any more
	Tried     map[string]int            // how often something was done that only works the second time
}

// call is one command line.
type call struct {
	*world
	words []string          // what is no flag
	flags map[string]string // --name=value; without a value "true"
	input string
}

func main() {
	name := filepath.Base(os.Args[0])
	out, err := run(os.Getenv("STANDIN"), name, os.Args[1:])
	fmt.Print(out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ERROR:", err)
		os.Exit(1)
	}
}

func run(folder, name string, args []string) (out string, err error) {
	if folder == "" {
		return "", errors.New("this is a stand-in, and STANDIN names no folder")
	}
	line, err := json.Marshal(append([]string{name}, args...))
	if err != nil {
		return "", err
	}
	log, err := os.OpenFile(filepath.Join(folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(log, "%s\n", line)
	if err := errors.Join(err, log.Close()); err != nil {
		return "", err
	}
	w := world{
		APIs: map[string]bool{}, Things: map[string]map[string]any{}, Roles: map[string][]string{}, Objects: map[string]bool{},
		Kube: map[string]map[string]any{}, Applied: map[string]bool{}, Tried: map[string]int{},
	}
	state := filepath.Join(folder, "world")
	if text, err := os.ReadFile(state); err == nil {
		if err := json.Unmarshal(text, &w); err != nil {
			return "", err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	c := call{&w, nil, map[string]string{}, string(input)}
	for i := 0; i < len(args); i++ {
		flag, ok := strings.CutPrefix(args[i], "--")
		switch name, value, assigned := strings.Cut(flag, "="); {
		case !ok:
			c.words = append(c.words, args[i])
		case assigned:
			c.flags[name] = value
		case slices.Contains([]string{"proto", "retry", "max-time", "max-filesize", "output"}, name) && i+1 < len(args): // curl's
			i++
			c.flags[name] = args[i]
		default:
			c.flags[name] = "true"
		}
	}
	programs := map[string]func(call) (string, bool, error){
		"gcloud": gcloud, "kubectl": kubectl, "ko": ko, "curl": curl, "tar": tar, "go": golang, "kind": kind, "docker": docker,
	}
	how := ""
	if text, err := os.ReadFile(filepath.Join(folder, "fail")); err == nil {
		how = string(text)
	}
	before, err := json.Marshal(w)
	if err != nil {
		return "", err
	}
	out, changes, err := programs[name](c)
	if err != nil {
		var undone world
		e := json.Unmarshal(before, &undone)
		undone.Tried = w.Tried
		w, changes = undone, false
		err = errors.Join(err, e)
	}
	if changes {
		w.Changes++
		// "3 before" and "3 after": the third change is not made, or is made and the answer lost.
		if n, when, _ := strings.Cut(how, " "); n == strconv.Itoa(w.Changes) {
			out, err = "", errors.New("the stand-in was told to fail")
			if when == "before" {
				var undone world
				if err := json.Unmarshal(before, &undone); err != nil {
					return "", err
				}
				undone.Changes = w.Changes
				w = undone
			}
		}
	}
	text, e := json.Marshal(w)
	if e == nil {
		e = os.WriteFile(state, text, 0o600)
	}
	return out, errors.Join(err, e)
}

// only says which flag has no business here.
func (c call) only(flags ...string) error {
	for name := range c.flags {
		if !slices.Contains(flags, name) {
			return fmt.Errorf("unrecognized argument: --%s", name)
		}
	}
	return nil
}

func asJSON(v any) (string, bool, error) {
	text, err := json.Marshal(v)
	return string(text), false, err
}
