package app

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
)

// The buckets of every histogram with the unit: "s" from a batch's wait on an idle system to a cold start, "By" from a
// line of JSON to more than any body may have.
var buckets = map[string][]float64{
	"s":  {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	"By": {1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20},
}

// serverAttributes are those that what is measured of HTTP requests has. The others are either the same for all or, as
// the address in the Host header, whatever a client makes up: each value is a time series, so a client could fill the
// memory with them, and make every scrape as large, until there is no room for what is true.
var serverAttributes = attribute.NewAllowKeysFilter("http.request.method", "http.response.status_code", "http.route", "error.type")

// view is what becomes of an instrument: its buckets and attributes.
func view(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	s := sdkmetric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit}
	boundaries, fits := buckets[i.Unit]
	fits = fits && i.Kind == sdkmetric.InstrumentKindHistogram
	if fits {
		s.Aggregation = sdkmetric.AggregationExplicitBucketHistogram{Boundaries: boundaries}
	}
	server := strings.HasPrefix(i.Name, "http.server.")
	if server {
		s.AttributeFilter = serverAttributes
		s.ExemplarReservoirProviderSelector = withoutRest
	}
	return s, fits || server
}

// withoutRest is the usual choice of exemplars, which have a trace's ids, but not the attributes that were filtered out:
// they are as long as a client likes, and Prometheus takes no exemplar above 128 characters.
func withoutRest(a sdkmetric.Aggregation) exemplar.ReservoirProvider {
	usual := sdkmetric.DefaultExemplarReservoirProviderSelector(a)
	return func(kept attribute.Set) exemplar.Reservoir { return plain{usual(kept)} }
}

type plain struct{ exemplar.Reservoir }

func (p plain) Offer(ctx context.Context, t time.Time, v exemplar.Value, _ []attribute.KeyValue) {
	p.Reservoir.Offer(ctx, t, v, nil)
}
