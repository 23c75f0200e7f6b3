package knative_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubefake "k8s.io/client-go/kubernetes/fake"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// dispatchPod is one of a model's, at an address of its own.
func dispatchPod(name, model string, change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: "uid", Labels: map[string]string{"app.kubernetes.io/component": "dispatch", "ebb.dev/model": model}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: loopback(), ContainerStatuses: []corev1.ContainerStatus{
			{Name: "dispatch", RestartCount: 1}, {Name: "queue-proxy"},
		}},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

const metrics = `# TYPE ebb_dispatch_compute_duration_seconds histogram
ebb_dispatch_compute_duration_seconds_bucket{network="inception_v3",version="2",le="+Inf"} 4
ebb_dispatch_compute_duration_seconds_sum{network="inception_v3",version="2"} 0.5
ebb_dispatch_compute_duration_seconds_count{network="inception_v3",version="2"} 4
`

// metricsAt serves a pod's metrics.
func metricsAt(t *testing.T, ip string, port int, handler http.HandlerFunc) int {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	require.NoError(t, err)
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: handler}}
	s.Start()
	t.Cleanup(s.Close)
	return ln.Addr().(*net.TCPAddr).Port
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(text))
	}
}

func TestWatcherAsksThePodsThatCallTheNetwork(t *testing.T) {
	t.Parallel()
	one, two := dispatchPod("one", "cat", nil), dispatchPod("two", "dog", nil)
	other := dispatchPod("other", "bird", nil)
	waiting := dispatchPod("waiting", "cat", func(p *corev1.Pod) { p.Status.Phase, p.Status.PodIP = corev1.PodPending, "" })
	gone := dispatchPod("gone", "cat", nil) // nobody listens there
	port := metricsAt(t, one.Status.PodIP, 0, say(metrics))
	metricsAt(t, two.Status.PodIP, port, say(metrics))
	metricsAt(t, other.Status.PodIP, port, func(http.ResponseWriter, *http.Request) { t.Error("a pod of another network was asked") })
	watcher := knative.NewWatcher(knative.WatcherConfig{
		Kubernetes: kubefake.NewClientset(one, two, other, waiting, gone), Namespace: namespace, Network: network, Models: []string{"cat", "dog"}, Port: port, Logger: quiet,
	})
	got, err := watcher.Tallies(t.Context())
	require.NoError(t, err)
	want := rollout.Tally{Answered: map[int64]rollout.Count{2: {Calls: 4, Seconds: 0.5}}}
	require.Equal(t, map[string]rollout.Tally{"one/uid/1": want, "two/uid/1": want}, got)
}

func TestWatcherWithoutPodsHasCountedNothing(t *testing.T) {
	t.Parallel()
	watcher := knative.NewWatcher(knative.WatcherConfig{Kubernetes: kubefake.NewClientset(), Namespace: namespace, Network: network, Models: []string{"cat"}, Port: 1, Logger: quiet})
	got, err := watcher.Tallies(t.Context())
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestWatcherThatNobodyAnswersFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) }, "502 Bad Gateway"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.com/", http.StatusFound)
		}, "302 Found"},
		{"no metrics", say("<html>"), "metrics"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			pod := dispatchPod("one", "cat", nil)
			port := metricsAt(t, pod.Status.PodIP, 0, tc.handler)
			watcher := knative.NewWatcher(knative.WatcherConfig{Kubernetes: kubefake.NewClientset(pod), Namespace: namespace, Network: network, Models: []string{"cat"}, Port: port, Logger: quiet})
			_, err := watcher.Tallies(t.Context())
			require.ErrorContains(t, err, "pod one: ")
			require.ErrorContains(t, err, tc.want)
		})
	}
}
