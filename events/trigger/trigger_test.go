package trigger_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/trigger"
)

const cat = `apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: cat
  namespace: ebb
  labels: {app.kubernetes.io/part-of: ebb}
  annotations:
    rabbitmq.eventing.knative.dev/parallelism: "100"
    example.com/of-somebody-else: "1"
spec:
  broker: ebb
  filter:
    attributes:
      type: dev.ebb.inference.requested.v1
      model: cat
  subscriber:
    ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}
  delivery:
    retry: 5
    backoffPolicy: exponential
    backoffDelay: PT0.2S
    timeout: PT1M30S
    deadLetterSink:
      ref:
        apiVersion: serving.knative.dev/v1
        kind: Service
        name: deadletter
        namespace: elsewhere
      uri: /failed
status:
  ready: true
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := trigger.Parse(strings.NewReader(cat), "cat.yaml")
	require.NoError(t, err)
	require.Equal(t, []trigger.Trigger{{
		Namespace: "ebb", Name: "cat", Broker: "ebb",
		Filter:     map[string]string{"type": "dev.ebb.inference.requested.v1", "model": "cat"},
		Subscriber: trigger.Destination{Namespace: "ebb", Name: "dispatch-cat"},
		Delivery: trigger.Delivery{
			Parallelism: 100, Retry: 5, Backoff: trigger.Exponential, BackoffDelay: 200 * time.Millisecond, Timeout: 90 * time.Second,
			DeadLetter: &trigger.Destination{Namespace: "elsewhere", Name: "deadletter", Path: "/failed"},
		},
	}}, got)
	require.Equal(t, "ebb/cat", got[0].String())
}

func TestParseSkipsOtherKinds(t *testing.T) {
	t.Parallel()
	manifest := `# a comment
---
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cat}
data: {anything: [goes]}
---
apiVersion: triggers.tekton.dev/v1
kind: Trigger
spec: {of: somebody else}
---
` + cat + `---
` + strings.ReplaceAll(strings.ReplaceAll(cat, "name: cat", "name: dog"), "  namespace: ebb\n", "") + "...\n"
	got, err := trigger.Parse(strings.NewReader(manifest), "all.yaml")
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, "ebb/cat", got[0].String())
	require.Equal(t, "dog", got[1].String())
	require.Empty(t, got[1].Subscriber.Namespace, "left to whoever applies it")

	got, err = trigger.Parse(strings.NewReader(""), "empty.yaml")
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestParseTakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, replacement string
		got              func(trigger.Trigger) any
		want             any
	}{
		"no parallelism: one at a time": {
			`    rabbitmq.eventing.knative.dev/parallelism: "100"` + "\n", "",
			func(g trigger.Trigger) any { return g.Delivery.Parallelism }, 1,
		},
		"an absolute subscriber": {
			"ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}", "uri: https://example.com:8443/a?b=c",
			func(g trigger.Trigger) any { return g.Subscriber }, trigger.Destination{URI: "https://example.com:8443/a?b=c"},
		},
		"a plain Kubernetes Service": {
			"serving.knative.dev/v1, kind", "v1, kind",
			func(g trigger.Trigger) any { return g.Subscriber.Name }, "dispatch-cat",
		},
		"no filter: everything": {
			"  filter:\n    attributes:\n      type: dev.ebb.inference.requested.v1\n      model: cat\n", "",
			func(g trigger.Trigger) any { return len(g.Filter) }, 0,
		},
		"no retry": {"retry: 5", "retry: 0", func(g trigger.Trigger) any { return g.Delivery.Retry }, 0},
		"linear":   {"exponential", "linear", func(g trigger.Trigger) any { return g.Delivery.Backoff }, trigger.Linear},
		"an hour":  {"PT1M30S", "PT1H", func(g trigger.Trigger) any { return g.Delivery.Timeout }, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, cat, c.old)
			got, err := trigger.Parse(strings.NewReader(strings.Replace(cat, c.old, c.replacement, 1)), "cat.yaml")
			require.NoError(t, err)
			require.Len(t, got, 1)
			require.Equal(t, c.want, c.got(got[0]))
		})
	}
}

func TestParseRefusesWithFileLineAndField(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, replacement, want string }{
		"beta":                       {"knative.dev/v1\nkind", "knative.dev/v1beta1\nkind", `cat.yaml:1: apiVersion: is "eventing.knative.dev/v1beta1"; should be eventing.knative.dev/v1`},
		"kind of nothing":            {"kind: Trigger", "Kind: Trigger", "cat.yaml:1: document: has no kind or no apiVersion"},
		"unknown field at the top":   {"status:", "stats:", "cat.yaml:30: stats: is not supported"},
		"unknown field in spec":      {"  broker: ebb", "  broker: ebb\n  brokr: x", "cat.yaml:12: spec.brokr: is not supported; this may have: broker, filter, subscriber, delivery"},
		"no name":                    {"  name: cat\n", "", "cat.yaml:4: metadata.name: is missing"},
		"a number for a name":        {"name: cat", "name: 7", "cat.yaml:4: metadata.name: should be text; put it in quotes"},
		"a name Kubernetes refuses":  {"name: cat", "name: Cat!", `cat.yaml:4: metadata.name: "Cat!" is not a Kubernetes name`},
		"an empty name":              {"name: cat", `name: ""`, "cat.yaml:4: metadata.name: is empty"},
		"no broker":                  {"  broker: ebb\n", "", "cat.yaml:11: spec.broker: is missing"},
		"a key twice":                {"  broker: ebb", "  broker: ebb\n  broker: other", "cat.yaml:12: spec.broker: is there twice"},
		"filters":                    {"  filter:\n    attributes:\n      type: dev.ebb.inference.requested.v1\n", "  filters:\n  - exact:\n      type: dev.ebb.inference.requested.v1\n", "cat.yaml:13: spec.filters: the RabbitMQ broker ignores it"},
		"CESQL":                      {"  filter:\n    attributes:", "  filter:\n    cesql: x\n    attributes:", "cat.yaml:13: spec.filter.cesql: is not supported"},
		"a number to filter by":      {"model: cat", "model: 7", "cat.yaml:15: spec.filter.attributes.model: should be text"},
		"an empty value":             {"model: cat", `model: ""`, "cat.yaml:15: spec.filter.attributes.model: should have 1 to 256"},
		"an attribute's name":        {"model: cat", "Model: cat", "cat.yaml:15: spec.filter.attributes.Model: is not the name"},
		"no subscriber":              {"  subscriber:\n    ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}\n", "", "cat.yaml:11: spec.subscriber: is missing"},
		"an empty subscriber":        {"  subscriber:\n    ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}\n", "  subscriber: {}\n", "cat.yaml:16: spec.subscriber: has neither ref nor uri"},
		"a Deployment":               {"kind: Service, name: dispatch", "kind: Deployment, name: dispatch", `cat.yaml:17: spec.subscriber.ref.kind: is "Deployment"; should be Service`},
		"another group":              {"serving.knative.dev/v1, ", "example.com/v1, ", `cat.yaml:17: spec.subscriber.ref.apiVersion: is "example.com/v1"`},
		"ref beside an absolute uri": {"uri: /failed", "uri: http://example.com/failed", `cat.yaml:29: spec.delivery.deadLetterSink.uri: "http://example.com/failed" is not a path`},
		"a path of another host":     {"uri: /failed", "uri: //example.com/failed", "cat.yaml:29: spec.delivery.deadLetterSink.uri"},
		"ftp":                        {"ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}", "uri: ftp://example.com", "cat.yaml:17: spec.subscriber.uri"},
		"a password":                 {"ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: dispatch-cat}", "uri: http://a:b@example.com", "cat.yaml:17: spec.subscriber.uri"},
		"no delivery":                {cat[strings.Index(cat, "  delivery:"):strings.Index(cat, "status:")], "", "cat.yaml:11: spec.delivery: is missing: without it the RabbitMQ broker loses events"},
		"no dead letter sink":        {cat[strings.Index(cat, "    deadLetterSink:"):strings.Index(cat, "status:")], "", "cat.yaml:19: spec.delivery.deadLetterSink: is missing: without it the RabbitMQ broker drops"},
		"no retry":                   {"    retry: 5\n", "", "cat.yaml:19: spec.delivery.retry: is missing"},
		"retry in quotes":            {"retry: 5", `retry: "5"`, "cat.yaml:19: spec.delivery.retry"},
		"too many retries":           {"retry: 5", "retry: 101", "cat.yaml:19: spec.delivery.retry"},
		"an unknown policy":          {"exponential", "expotential", `cat.yaml:20: spec.delivery.backoffPolicy: is "expotential"; should be linear or exponential`},
		"a Go duration":              {"PT0.2S", "200ms", `cat.yaml:21: spec.delivery.backoffDelay: "200ms" is not an ISO 8601 duration`},
		"more decimals than Knative": {"PT0.2S", "PT0.05S", "cat.yaml:21: spec.delivery.backoffDelay"},
		"months":                     {"PT0.2S", "P1M", "cat.yaml:21: spec.delivery.backoffDelay"},
		"nothing after T":            {"PT0.2S", "P1DT", "cat.yaml:21: spec.delivery.backoffDelay"},
		"no time at all":             {"PT0.2S", "PT0S", "cat.yaml:21: spec.delivery.backoffDelay: should be more than nothing"},
		"no timeout":                 {"    timeout: PT1M30S\n", "", "cat.yaml:19: spec.delivery.timeout: is missing"},
		"a timeout of a day":         {"PT1M30S", "P1D", "cat.yaml:22: spec.delivery.timeout: is 24h0m0s; at most 1h0m0s is allowed"},
		"format":                     {"    retry: 5", "    format: json\n    retry: 5", "cat.yaml:19: spec.delivery.format: is not supported"},
		"parallelism 0":              {`"100"`, `"0"`, `cat.yaml:8: metadata.annotations.rabbitmq.eventing.knative.dev/parallelism: is "0"`},
		"parallelism 101":            {`"100"`, `"101"`, "cat.yaml:8: metadata.annotations"},
		"parallelism unquoted":       {`"100"`, `100`, "cat.yaml:8: metadata.annotations.rabbitmq.eventing.knative.dev/parallelism: should be text; put it in quotes"},
		"a slip in the annotation":   {"/parallelism", "/paralellism", "cat.yaml:8: metadata.annotations.rabbitmq.eventing.knative.dev/paralellism: is not known; did you mean"},
		"annotations of no kind":     {"  annotations:\n", "  annotations: [1]\n  labelz:\n", "cat.yaml:7: metadata.annotations: should be a mapping"},
		"a list":                     {cat, "- 1\n", "cat.yaml:1: document: should be a mapping"},
		"not YAML":                   {"spec:", "spec: {", "cat.yaml: yaml:"},
		"the same twice":             {"status:\n  ready: true\n", "---\n" + cat, "cat.yaml:34: metadata.name: ebb/cat is also the Trigger at line 1"},
		"an alias":                   {"  broker: ebb", "  broker: &b ebb\n  filter: *b", "merge keys, aliases"},
		"too large":                  {"status:", "#" + strings.Repeat("x", 1<<20) + "\nstatus:", "cat.yaml: the file has more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, cat, c.old)
			got, err := trigger.Parse(strings.NewReader(strings.Replace(cat, c.old, c.replacement, 1)), "cat.yaml")
			require.ErrorContains(t, err, c.want)
			require.Empty(t, got)
		})
	}
}

func TestParseShowsAllErrorsInOrder(t *testing.T) {
	t.Parallel()
	broken := strings.NewReplacer("retry: 5", "retry: five", "broker: ebb", "broker: 3", "PT0.2S", "soon").Replace(cat)
	_, err := trigger.Parse(strings.NewReader(broken), "cat.yaml")
	require.EqualError(t, err, `cat.yaml:11: spec.broker: should be text; put it in quotes
cat.yaml:19: spec.delivery.retry: is "five"; should be a number from 0 to 100
cat.yaml:21: spec.delivery.backoffDelay: "soon" is not an ISO 8601 duration of days, hours, minutes and seconds with at most one decimal, such as PT0.2S or PT1M30S`)
}

func TestPause(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy trigger.Policy
		delay  time.Duration
		want   map[int]time.Duration
	}{
		"linear":      {trigger.Linear, 200 * time.Millisecond, map[int]time.Duration{1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 10: 2 * time.Second}},
		"exponential": {trigger.Exponential, 100 * time.Millisecond, map[int]time.Duration{1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 5: 3200 * time.Millisecond, 100: time.Hour}},
		"bounded":     {trigger.Linear, 10 * time.Minute, map[int]time.Duration{6: time.Hour, 7: time.Hour, 100: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, want := range c.want {
				require.Equal(t, want, trigger.Delivery{Backoff: c.policy, BackoffDelay: c.delay}.Pause(n), "retry %d", n)
			}
		})
	}
}

// FuzzParse feeds manifests to the parser: it must not panic, and what it takes is within the documented limits.
func FuzzParse(f *testing.F) {
	f.Add(cat)
	f.Add(cat + "---\n" + cat)
	f.Add("a: &a [*a]\n")
	f.Add("kind: Trigger\napiVersion: eventing.knative.dev/v1\n<<: {spec: {}}\n")
	f.Add("{kind: Trigger, apiVersion: eventing.knative.dev/v1, metadata: [], spec: {delivery: ~}}")
	f.Fuzz(func(t *testing.T, manifest string) {
		got, err := trigger.Parse(strings.NewReader(manifest), "fuzz.yaml")
		if err != nil {
			require.Nil(t, got)
			return
		}
		for _, g := range got {
			require.NotEmpty(t, g.Name)
			require.NotEmpty(t, g.Broker)
			require.NotEmpty(t, g.Subscriber.URI+g.Subscriber.Name)
			require.NotNil(t, g.Delivery.DeadLetter)
			require.InDelta(t, 1, g.Delivery.Parallelism, trigger.MaxParallelism-1)
			require.Positive(t, g.Delivery.BackoffDelay)
			require.Positive(t, g.Delivery.Timeout)
			require.LessOrEqual(t, g.Delivery.Pause(g.Delivery.Retry), trigger.MaxPause)
		}
	})
}

func TestAttemptsByAnAttribute(t *testing.T) {
	t.Parallel()
	of := func(model string, retry int) trigger.Trigger {
		return trigger.Trigger{Filter: map[string]string{"model": model}, Delivery: trigger.Delivery{Retry: retry}}
	}
	require.Equal(t, map[string]int{"cat": 6, "dog": 1}, trigger.AttemptsBy("model", []trigger.Trigger{
		of("cat", 5), of("cat", 5), of("dog", 0), of("wolf", 1), of("wolf", 2), of("wolf", 1), {Delivery: trigger.Delivery{Retry: 3}},
	}), "not of those that differ")
}
