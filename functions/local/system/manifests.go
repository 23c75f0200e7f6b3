package system

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/models"
)

// dispatchPrefix and the model's name make the name of the Service that answers for a model.
const dispatchPrefix = "dispatch-"

// manifests is what the YAML of a cluster says: the models, in the order of their files, and the Triggers.
type manifests struct {
	models   []*models.Model
	triggers []trigger.Trigger
}

// hasSource says whether a network's versions are published somewhere.
func (m manifests) hasSource(network string) bool {
	return slices.ContainsFunc(m.models, func(model *models.Model) bool {
		return model.Serving.Model == network && model.Serving.Source != (models.Source{})
	})
}

// readManifests reads the models and Triggers of every .yaml file of the folders. A model of a later folder replaces the one
// with its name, a Trigger likewise, so that a folder can hold nothing but what differs.
func readManifests(folders []string) (m manifests, err error) {
	if m.models, err = models.ReadFolders(folders...); err != nil {
		return m, err
	}
	for _, folder := range folders {
		if err := m.readTriggers(folder); err != nil {
			return m, err
		}
	}
	return m, m.check(folders)
}

func (m *manifests) readTriggers(folder string) error {
	files := os.DirFS(folder)
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("in %s: %w", folder, err)
		}
		triggers, err := trigger.Parse(bytes.NewReader(data), filepath.Join(folder, name))
		if err != nil {
			return err
		}
		for _, t := range triggers {
			m.replace(t)
		}
	}
	return nil
}

// replace puts t where its predecessor is, or at the end.
func (m *manifests) replace(t trigger.Trigger) {
	same := func(other trigger.Trigger) bool { return other.Namespace == t.Namespace && other.Name == t.Name }
	if i := slices.IndexFunc(m.triggers, same); i >= 0 {
		m.triggers[i] = t
		return
	}
	m.triggers = append(m.triggers, t)
}

// check says what would make requests disappear: a model that no Trigger serves, a Trigger for no model.
func (m *manifests) check(folders []string) error {
	where := strings.Join(folders, ", ")
	if len(m.models) == 0 {
		return fmt.Errorf("no model in %s: a model is a ConfigMap with the label ebb.dev/model", where)
	}
	known := map[string]bool{}
	for _, model := range m.models {
		known[model.Name] = false
	}
	var errs []error
	for _, t := range m.triggers {
		name, ok := t.Filter[events.ExtModel]
		if !ok || t.Filter["type"] != events.TypeRequested {
			continue // somebody's own Trigger, for other events
		}
		if _, ok := known[name]; !ok {
			errs = append(errs, fmt.Errorf("the Trigger %s selects the model %q, which %s does not define", t, name, where))
			continue
		}
		known[name] = true
	}
	for _, model := range m.models {
		if !known[model.Name] {
			errs = append(errs, fmt.Errorf("no Trigger in %s selects the model %q (filter attributes type: %s, model: %s): nobody would answer for it",
				where, model.Name, events.TypeRequested, model.Name))
		}
	}
	return errors.Join(errs...)
}
