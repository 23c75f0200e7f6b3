package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/system"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// bench is a running Ebb, and the model server that it shares with the limit: what a program reaches that decodes, resizes
// and calls Predict itself, with nothing between.
type bench struct {
	options
	url    string
	client *http.Client
	model  *models.Model
	direct *tfserving.Client
	spec   tfserving.Spec
	data   []byte
}

// measurePath compares Ebb with the limit, in turn within one run.
func measurePath(ctx context.Context, o options) (_ []figure, err error) {
	b := &bench{options: o}
	if b.data, err = os.ReadFile(o.picture); err != nil {
		return nil, err
	}
	found, err := models.ReadManifest(os.DirFS(o.manifests), o.model+".yaml")
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s.yaml in %s has %d models; want one", o.model, o.manifests, len(found))
	}
	b.model = found[0]
	b.spec = tfserving.Spec{Model: b.model.Serving.Model, Signature: b.model.Serving.Signature}
	stop, err := b.start(ctx)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	defer func() { err = errors.Join(err, stop()) }()

	latency, err := b.latency(ctx)
	if err != nil {
		return nil, err
	}
	throughput, err := b.throughput(ctx)
	return append(latency, throughput...), err
}

// start starts the model server and, in front of it, the whole of Ebb.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	var started stops
	stop = started.stop
	quiet := slog.New(slog.DiscardHandler)
	address, stopServer, err := startModelServer(ctx, b.networks, quiet)
	if err != nil {
		return stop, err
	}
	started.add(stopServer)
	if b.direct, err = tfserving.Dial(address); err != nil {
		return stop, err
	}
	started.add(b.direct.Close)

	sys, err := system.Start(ctx, system.Config{Manifests: []string{b.manifests}, Networks: b.networks, Serving: address, Logger: quiet})
	if err != nil {
		return stop, err
	}
	started.add(func() error { return sys.Stop(context.WithoutCancel(ctx), stopTimeout) })
	url, stopHTTP, err := serve(ctx, sys)
	if err != nil {
		return stop, err
	}
	started.add(stopHTTP)
	b.url = url + "/v1/infer?model=" + b.options.model
	b.client = newClient(b.concurrency)
	return stop, nil
}

// viaEbb asks once over HTTP.
func (b *bench) viaEbb(ctx context.Context) error {
	return askHTTP(ctx, b.client, b.url, b.data)
}

// tensor decodes the picture and appends its tensor to dst.
func (b *bench) tensor(dst []byte) ([]byte, error) {
	img, err := picture.Decode(b.data, picture.DefaultLimits)
	if err != nil {
		return nil, err
	}
	return picture.AppendTensor(dst, img, b.model.Input)
}

// predict computes n pictures in one call and interprets each.
func (b *bench) predict(ctx context.Context, tensor []byte, n int) error {
	in := tfserving.Tensor{DType: tfserving.Uint8, Shape: []int64{int64(n), int64(b.model.Input.Height), int64(b.model.Input.Width), 3}, Data: tensor}
	out, _, err := b.direct.Predict(ctx, b.spec, map[string]tfserving.Tensor{b.model.Input.Tensor: in}, b.model.Output.Tensor)
	if err != nil {
		return err
	}
	values, err := out[b.model.Output.Tensor].Floats()
	if err != nil {
		return err
	}
	for row := range slices.Chunk(values, len(b.model.Labels)) {
		if _, err := b.model.Interpret(row); err != nil {
			return err
		}
	}
	return nil
}

// asked is one lone request, in milliseconds.
type asked struct {
	took, decoding float64
}

// timedViaEbb asks once over HTTP. How long decoding took is what the answer says: with reading the picture, not a hundredth of it.
func (b *bench) timedViaEbb(ctx context.Context) (asked, error) {
	began := time.Now()
	body, err := answerHTTP(ctx, b.client, b.url, b.data)
	took := since(began)
	if err != nil {
		return asked{}, err
	}
	var answer ask.Response
	if err := json.Unmarshal(body, &answer); err != nil {
		return asked{}, err
	}
	if len(answer.Results) != 1 || answer.Results[0].Timing == nil {
		return asked{}, fmt.Errorf("the answer does not say where its time went: %s", body)
	}
	return asked{took: took, decoding: answer.Results[0].Timing.Decode}, nil
}

// timedAlone asks once, without Ebb.
func (b *bench) timedAlone(ctx context.Context) (asked, error) {
	began := time.Now()
	tensor, err := b.tensor(nil)
	decoding := since(began)
	if err != nil {
		return asked{}, err
	}
	err = b.predict(ctx, tensor, 1)
	return asked{took: since(began), decoding: decoding}, err
}

// since is how many milliseconds have passed.
func since(began time.Time) float64 { return float64(time.Since(began)) / 1e6 }

// alike is how far apart the times that decoding took in a pair may be, as a part of them.
const alike = 0.05

// latency asks one thing at a time, through Ebb and without it, and sends the same bytes over three bare HTTP hops, which is
// what the design cannot do without: to ingress, to the broker, to dispatch.
//
// What Ebb adds is the median of the differences within pairs. Decoding takes either of two times, an eighth apart, by the core
// that Go's monitor thread happens to run on, and who meets it more often is chance, but the same chance for a whole run: so only
// pairs count in which decoding took equally long. Who of a pair comes first changes with each, since what ran before leaves its
// traces in the caches and the heap.
func (b *bench) latency(ctx context.Context) (_ []figure, err error) {
	first, stop, err := chain(ctx, b.client, 3)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	const warm = 10
	var with, without, added, hops []float64
	for i := range b.pairs + warm {
		pair := []func(context.Context) (asked, error){b.timedViaEbb, b.timedAlone}
		var of [2]asked
		for j := range pair {
			who := (i + j) % len(pair)
			if of[who], err = pair[who](ctx); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		if err := askHTTP(ctx, b.client, first, b.data); err != nil {
			return nil, err
		}
		hop := since(began)
		if i < warm {
			continue
		}
		ebb, alone := of[0], of[1]
		with, without, hops = append(with, ebb.took), append(without, alone.took), append(hops, hop)
		if math.Abs(ebb.decoding-alone.decoding) <= alike*alone.decoding {
			added = append(added, ebb.took-alone.took)
		}
	}
	if len(added) == 0 {
		return nil, errors.New("decoding never took equally long with and without Ebb: the machine is too busy to compare them")
	}
	// Of n values the median lies, 95 times in 100, between those that are so many of its standard deviations (half the root of
	// n, in places) away from the middle one.
	sure := 1.96 / 2 / math.Sqrt(float64(len(added)))
	return []figure{
		{Name: "one at a time: added latency, p50", Value: quantile(added, 0.5), Unit: "ms", Goal: 1, Better: lower,
			Note: fmt.Sprintf("of %d pairs, of %d, in which decoding took equally long; with 95 %% confidence %.2f to %.2f ms; p50 %.1f ms through Ebb, "+
				"%.1f ms at the limit; three bare HTTP hops of %d KB take %.2f ms",
				len(added), len(with), quantile(added, 0.5-sure), quantile(added, 0.5+sure), quantile(with, 0.5), quantile(without, 0.5),
				len(b.data)>>10, quantile(hops, 0.5))},
		{Name: "one at a time: latency, p50, to the limit's", Value: quantile(with, 0.5) / quantile(without, 0.5), Unit: "×", Better: lower},
		{Name: "one at a time: latency, p99, to the limit's", Value: quantile(with, 0.99) / quantile(without, 0.99), Unit: "×", Better: lower},
	}, nil
}

// throughput compares requests a second through Ebb with those of the limit at its best batch. A round has to be long beside its
// beginning and its end, when fewer requests are under way than may be: batches are small then, and a core is idle.
func (b *bench) throughput(ctx context.Context) ([]figure, error) {
	best, err := b.bestBatch(ctx)
	if err != nil {
		return nil, err
	}
	many := 3 * b.requests
	var with, without, ratios []float64
	for range b.rounds {
		e, err := rate(ctx, many, b.concurrency, 1, b.viaEbb)
		if err != nil {
			return nil, err
		}
		l, err := b.limit(ctx, many, best)
		if err != nil {
			return nil, err
		}
		with, without, ratios = append(with, e), append(without, l), append(ratios, e/l)
	}
	return []figure{{
		Name: fmt.Sprintf("%d at a time: throughput, to the limit's", b.concurrency), Value: median(ratios), Unit: "×", Goal: 0.95, Better: higher,
		Note: fmt.Sprintf("%.1f requests/s through Ebb, %.1f at the limit with batches of %d; rounds %.3f to %.3f",
			median(with), median(without), best, slices.Min(ratios), slices.Max(ratios)),
	}}, nil
}

// bestBatch is the batch size with which the limit is highest.
func (b *bench) bestBatch(ctx context.Context) (int, error) {
	best, bestRate := 0, 0.0
	for size := 1; size <= b.model.Batching.Size; size *= 2 {
		rate, err := b.limit(ctx, b.requests, size)
		if err != nil {
			return 0, err
		}
		fmt.Printf("  the limit with batches of %d: %.1f pictures/s\n", size, rate)
		if rate > bestRate {
			best, bestRate = size, rate
		}
	}
	return best, nil
}

// limit is how many pictures a second, of so many, go through decode, resize and Predict with batches of the given size.
func (b *bench) limit(ctx context.Context, pictures, size int) (float64, error) {
	return rate(ctx, pictures, b.concurrency, size, func(ctx context.Context) error {
		var tensors []byte
		for range size {
			var err error
			if tensors, err = b.tensor(tensors); err != nil {
				return err
			}
		}
		return b.predict(ctx, tensors, size)
	})
}
