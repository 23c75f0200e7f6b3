package system

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/fetch"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	syncfolder "github.com/ebb-inference/ebb/functions/modelsync/folder"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	modelsync "github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/functions/modelsync/tally"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/index"
	"github.com/ebb-inference/ebb/models/source/tfs"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// DefaultSyncInterval is the time between two looks at the networks' sources.
const DefaultSyncInterval = 10 * time.Second

const (
	// modelSyncName is the path of modelsync on loopback.
	modelSyncName = "modelsync"
	// syncPatience is for one look by HTTP: less than a server here takes to write an answer.
	syncPatience = 90 * time.Second
)

// sources are the kinds of sources here. Clouds' own are for clusters: their libraries would make a first start slow.
func sources() source.Openers {
	openers := source.Openers{folder.Scheme: folder.Opener(folder.Options{})}
	for _, scheme := range index.Schemes {
		openers[scheme] = index.Opener(index.Options{})
	}
	return openers
}

// startModelSync keeps the networks that have a source current, with a schedule of its own in place of a PingSource.
func (s *System) startModelSync(c Config, m manifests, loader store.Loader[server.Network], broker string, fetcher *fetch.Fetcher) (*modelsync.Service, error) {
	networks, err := models.Networks(m.models)
	if err != nil {
		return nil, err
	}
	if loader == nil && len(networks) > 0 {
		c.Logger.Warn("versions are not kept current: the model server is not started here, and its folder is not ours", "address", c.Serving)
		networks = nil
	}
	config := modelsync.Config{Patience: syncPatience, Logger: c.Logger}
	if len(networks) > 0 {
		transport := http.DefaultTransport.(*http.Transport).Clone() // it is one
		s.started("modelsync's events", func(context.Context) error {
			transport.CloseIdleConnections()
			return nil
		})
		tell := &modelsync.Announcer{BrokerURL: broker, Client: &http.Client{Transport: transport}, Source: "/ebb/modelsync/" + replica, Logger: c.Logger}
		if config.Networks, err = s.rollouts(c, networks, loader, fetcher, tell); err != nil {
			return nil, err
		}
	}
	service, err := modelsync.New(config)
	if err != nil {
		return nil, err
	}
	if len(networks) > 0 {
		s.every(service, cmp.Or(c.SyncInterval, DefaultSyncInterval))
	}
	return service, nil
}

// rollouts makes what rolls the networks out.
func (s *System) rollouts(c Config, networks []*models.Network, loader store.Loader[server.Network], fetcher *fetch.Fetcher, tell *modelsync.Announcer) ([]modelsync.Network, error) {
	client, err := tfserving.Dial(c.Serving)
	if err != nil {
		return nil, fmt.Errorf("model server at %s: %w", c.Serving, err)
	}
	s.started("modelsync's client", func(context.Context) error { return client.Close() })
	scratch, err := syncfolder.Scratch(c.Networks)
	if err != nil {
		return nil, err
	}
	openers := sources()
	list := make([]modelsync.Network, len(networks))
	for i, n := range networks {
		target, err := syncfolder.New(syncfolder.Config{Base: c.Networks, Network: n.Name, Server: client, Loader: loader, Logger: c.Logger})
		if err != nil {
			return nil, err
		}
		s.started("candidate of "+n.Name, target.Close)
		config := rollout.Config{
			Network: n, Target: target, Records: syncfolder.NewRecords(c.Networks, n.Name), Whole: true,
			Open: func(ctx context.Context) (source.Source, error) {
				return tfs.Open(ctx, openers, n.Source.URL, n.Source.Files, source.Limits{})
			},
			Fetch: fetcher.Fetch, Holder: replica, Dir: scratch, Notify: tell.For(n), Logger: c.Logger,
		}
		if c.Calls != nil {
			config.Watcher = tally.NewProcess(c.Calls, n.Name)
		}
		r, err := rollout.New(config)
		if err != nil {
			return nil, err
		}
		list[i] = modelsync.Network{Network: n, Rollout: r}
	}
	return list, nil
}

// every looks at an interval until Stop. A look that is under way then is gone on with when all of this is started again.
func (s *System) every(service *modelsync.Service, interval time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		service.Every(ctx, interval)
	}()
	s.started("modelsync", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}
