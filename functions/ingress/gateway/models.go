package gateway

import (
	"net/http"
	"strconv"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/models"
)

// model is what clients are told about a model.
type model struct {
	Name     string `json:"name"`
	Question string `json:"question,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Labels   int    `json:"labels"`  // classes that the network tells apart
	Network  string `json:"network"` // its name where it is served

	version int64 // that answers; 0: the latest
	top     int   // classes in an answer, at most
}

func newModel(m *models.Model) *model {
	return &model{
		Name: m.Name, Question: m.Question, Subject: m.Subject, Labels: len(m.Labels), Network: m.Serving.Model,
		version: m.Serving.Version, top: min(m.Output.Top, len(m.Labels)),
	}
}

func (m *model) versionText() string { return strconv.FormatInt(m.version, 10) }

// listModels answers GET /v1/models.
func (g *gateway) listModels(w http.ResponseWriter, _ *http.Request) {
	list := make([]*model, 0, len(g.models))
	for _, m := range g.Service.Models() {
		list = append(list, g.models[m.Name])
	}
	writeJSON(w, http.StatusOK, map[string]any{"models": list})
}

// named finds the model that the path names.
func (g *gateway) named(r *http.Request) (*model, *problem.Details) {
	name := r.PathValue("model")
	if m := g.models[name]; m != nil {
		return m, nil
	}
	return nil, g.Service.UnknownModel(name)
}
