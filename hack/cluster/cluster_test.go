//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOnACluster(t *testing.T) {
	if os.Getenv("EBB_CLUSTER_TEST") != "1" {
		t.Skip("EBB_CLUSTER_TEST=1 says that the cluster of KUBECONFIG may be used: `make test-cluster`")
	}
	// One after the other: each goes on from what the one before left.
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"what is in config becomes ready", deploys},
		{"the queues are what Knative declares, within limits", hasItsQueues},
		{"from zero pods it answers, and goes back to zero", answersFromZero},
		{"without waking it answers, too", unwoken},
		{"a burst from zero is answered in batches", answersABurst},
		{"the page answers a person, from zero", answersAPerson},
		{"bad manifests are refused by the webhooks", refusesBadManifests},
		{"functions may do nothing but their work", mayDoNothingElse},
		{"pods that end by force lose no request", losesNoRequestWithAPod},
		{"a pod that ends by force loses no dead letter", losesNoDeadLetter},
		{"a restart of RabbitMQ loses no request", losesNoRequestWithRabbitMQ},
		{"a new revision fails no request, nor does going back", failsNoRequestRollingOut},
		{"a network keeps itself current, and is taken back", keepsItselfCurrent},
		{"the commands of the guide work", worksAsTheGuideSays},
	} {
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
	}
}

// deploys does what config/README.md says.
func deploys(t *testing.T) {
	remove(t)
	kubectl(t, "apply", "-f", "config/000-namespace.yaml")
	secret := command(t, nil, "go", "run", "./hack/secret")
	command(t, secret, "kubectl", "apply", "-f", "-")
	began := time.Now()
	command(t, nil, "ko", "apply", "-f", "config/", "-f", "config/models/")
	applied := time.Now()
	eventually(t, func() string { return notReady(t) })
	measured("ko apply, images built and pushed", "%.1f s", applied.Sub(began).Seconds())
	measured("until everything is ready", "%.1f s", time.Since(applied).Seconds())
}

// remove removes what an earlier run left, as config/README.md says: what is in RabbitMQ first, since it takes the Secret to
// remove that.
func remove(t *testing.T) {
	t.Helper()
	if len(kubectl(t, "get", "namespace", namespace, "--ignore-not-found", "-o", "name")) == 0 {
		return
	}
	kubectl(t, "-n", namespace, "delete", "trigger,broker,operatorpolicy", "--all", "--timeout", patience.String())
	eventually(t, func() string {
		return string(kubectl(t, "-n", namespace, "get", "queues.rabbitmq.com,exchanges.rabbitmq.com,bindings.rabbitmq.com", "-o", "name"))
	})
	kubectl(t, "delete", "namespace", namespace, "--timeout", patience.String())
}

// queue is what RabbitMQ's management API says of one.
type queue struct {
	Name      string
	Type      string
	Messages  int
	Arguments map[string]any
	Policy    map[string]any `json:"effective_policy_definition"`
}

func management(t *testing.T, path string, into any) {
	t.Helper()
	rabbit, err := url.Parse(os.Getenv("RABBITMQ_URL"))
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(os.Getenv("RABBITMQ_MANAGEMENT_URL"), "/")+path, http.NoBody)
	require.NoError(t, err)
	if password, ok := rabbit.User.Password(); ok && req.URL.User == nil {
		req.SetBasicAuth(rabbit.User.Username(), password)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}

func queues(t *testing.T) (all []queue) {
	t.Helper()
	management(t, "/api/queues/%2F", &all)
	return all
}

func hasItsQueues(t *testing.T) {
	brokers := objects(t, "broker")
	require.Len(t, brokers, 1)
	triggers := objects(t, "trigger")
	require.NotEmpty(t, triggers)
	for _, trigger := range triggers {
		name := namespace + "." + trigger.Metadata.Name + "." + brokers[0].Metadata.UID
		var q queue
		eventually(t, func() string { // what applies to a queue RabbitMQ says some seconds after it made it
			all := queues(t)
			i := slices.IndexFunc(all, func(q queue) bool { return q.Name == name })
			if i < 0 || all[i].Policy["dead-letter-exchange"] == nil {
				return "no queue " + name + ", or no policy for it"
			}
			q = all[i]
			return ""
		})
		require.Equal(t, "quorum", q.Type, name)
		require.Contains(t, q.Policy["dead-letter-exchange"], "t."+namespace+"."+trigger.Metadata.Name+".dlx.", name)
		for _, limit := range []string{"message-ttl", "max-length", "max-length-bytes"} {
			require.NotEmpty(t, q.Policy[limit], "%s: %s", name, limit)
		}
	}
}

// answer is an entry of what ingress answers.
type answer struct {
	Model       string
	Answer      *bool
	Probability float64
	Error       json.RawMessage
	ServedBy    struct {
		Model   string
		Version int64
	} `json:"served_by"`
	Timing struct {
		Total, Queue, Decode, Batch, Compute float64
	} `json:"timing_ms"`
	BatchSize int `json:"batch_size"`
}

// address is where ingress is reached.
func address(t *testing.T) string {
	t.Helper()
	if u := os.Getenv("EBB_URL"); u != "" {
		return strings.TrimSuffix(u, "/")
	}
	for _, o := range objects(t, "ksvc") {
		if o.Metadata.Name == "ingress" {
			return o.Status.URL
		}
	}
	t.Fatal("there is no Service ingress")
	return ""
}

// ask asks a model about a picture, and says how long it took. An error is anything but the right answer.
func ask(t *testing.T, base, model, file string, yes bool) (a answer, took time.Duration, err error) {
	t.Helper()
	picture, err := os.ReadFile(pictures + file)
	if err != nil {
		return a, 0, err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/infer?model="+model, bytes.NewReader(picture))
	if err != nil {
		return a, 0, err
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took = time.Since(began)
	if err != nil {
		return a, took, err
	}
	var got struct{ Results []answer }
	if err := json.Unmarshal(body, &got); err != nil || resp.StatusCode != http.StatusOK || len(got.Results) != 1 {
		return a, took, fmt.Errorf("%s: %.500s", resp.Status, body)
	}
	a = got.Results[0]
	if a.Answer == nil || *a.Answer != yes || a.ServedBy.Version == 0 {
		return a, took, fmt.Errorf("%s, %s: not the answer: %s", model, file, body)
	}
	return a, took, nil
}

func cycles(t *testing.T) int {
	t.Helper()
	text := os.Getenv("EBB_CYCLES")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "EBB_CYCLES")
	return n
}

func answersFromZero(t *testing.T) {
	base := address(t)
	var first, second []time.Duration
	for range cycles(t) {
		awaitZero(t)
		a, took, err := ask(t, base, "cat", "chelsea.png", true)
		require.NoError(t, err)
		t.Logf("cat from zero: %.2f s: queue %.0f ms, decode %.0f, batch %.0f, compute %.0f", took.Seconds(), a.Timing.Queue, a.Timing.Decode, a.Timing.Batch, a.Timing.Compute)
		first = append(first, took)
		_, took, err = ask(t, base, "dog", "dog.jpg", true)
		require.NoError(t, err)
		second = append(second, took)
	}
	began := time.Now()
	awaitZero(t)
	measured(fmt.Sprintf("cat from zero pods, %d times", len(first)), "median %.2f s, longest %.2f s; 0 failed", median(first).Seconds(), slices.Max(first).Seconds())
	measured("then dog, whose dispatch is at zero", "median %.2f s, longest %.2f s; 0 failed", median(second).Seconds(), slices.Max(second).Seconds())
	measured("from the last answer to zero pods", "%.1f s", time.Since(began).Seconds())
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func answersABurst(t *testing.T) {
	const requests = 300
	base := address(t)
	awaitGone(t)
	began := time.Now()
	answers, errs := make([]answer, requests), make([]error, requests)
	var asking sync.WaitGroup
	for i := range requests {
		asking.Go(func() {
			file := []string{"chelsea.png", "dog.jpg", "coffee.png"}[i%3]
			answers[i], _, errs[i] = ask(t, base, "cat", file, file == "chelsea.png")
		})
	}
	most := map[string]int{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		asking.Wait()
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-tick.C:
			for service, n := range replicas(t) {
				most[service] = max(most[service], n)
			}
		case <-done:
			waiting = false
		}
	}
	took := time.Since(began)
	sum := 0.0
	failed := 0
	for i := range answers {
		if errs[i] != nil {
			failed++
		}
		sum += float64(answers[i].BatchSize)
	}
	require.Zero(t, failed, "failed of %d; most pods: %v\n%.2000s", requests, most, fmt.Sprint(errors.Join(errs...)))
	mean := sum / requests
	measured(fmt.Sprintf("burst of %d from zero", requests), "all answered in %.1f s; mean batch size %.1f; most pods: %v", took.Seconds(), mean, most)
	require.Greater(t, mean, 2.0, "batches form")
	began = time.Now()
	awaitZero(t)
	measured("from the burst's end to zero pods", "%.1f s", time.Since(began).Seconds())
}
