package wake

import (
	"context"
	"errors"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// Server is a model's server. It is asked how the model stands, which is the least that every model server can be asked, and
// each time over a connection of its own: what it asks, it asks seldom.
func Server(m *models.Model) Target {
	return Target{Name: m.Serving.Address, Ask: func(ctx context.Context) (err error) {
		client, err := tfserving.Dial(m.Serving.Address)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.Close()) }()
		_, err = client.Status(ctx, tfserving.Spec{Model: m.Serving.Model})
		return err
	}}
}
