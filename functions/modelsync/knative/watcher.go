package knative

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/tally"
)

// Bounds of reading what pods have counted.
const (
	scrapes       = 16              // at once
	scrapeTimeout = 3 * time.Second // of one
)

// WatcherConfig is who makes the calls of a network, and how what he has counted is read.
type WatcherConfig struct {
	Kubernetes kubernetes.Interface
	Namespace  string
	Network    string
	Models     []string     // that the network serves; dispatch has pods for each
	Port       int          // where dispatch serves /metrics
	Logger     *slog.Logger // default slog.Default()
}

// Watcher is a rollout.Watcher that asks dispatch's pods.
type Watcher struct {
	cfg    WatcherConfig
	client *http.Client
}

var _ rollout.Watcher = (*Watcher)(nil)

// NewWatcher returns the Watcher of a network.
func NewWatcher(cfg WatcherConfig) *Watcher {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Watcher{cfg, &http.Client{
		// A pod is asked once in a long while, and is gone soon.
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Tallies asks all pods that are ready. A pod that cannot be asked is one that has just gone, unless it is so with all.
func (w *Watcher) Tallies(ctx context.Context) (map[string]rollout.Tally, error) {
	pods, err := w.cfg.Kubernetes.CoreV1().Pods(w.cfg.Namespace).List(ctx, metav1.ListOptions{LabelSelector: w.selector()})
	if err != nil {
		return nil, fmt.Errorf("pods of dispatch: %w", err)
	}
	var mu sync.Mutex
	tallies := map[string]rollout.Tally{}
	var failed []error
	var asking errgroup.Group
	asking.SetLimit(scrapes)
	for _, pod := range pods.Items {
		process := processOf(&pod)
		if process == "" {
			continue
		}
		asking.Go(func() error {
			counted, err := w.scrape(ctx, pod.Status.PodIP)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.cfg.Logger.WarnContext(ctx, "pod was not asked what it has counted", "pod", pod.Name, "error", err)
				failed = append(failed, fmt.Errorf("pod %s: %w", pod.Name, err))
				return nil
			}
			tallies[process] = counted
			return nil
		})
	}
	_ = asking.Wait() // none of them fails
	if len(tallies) == 0 && len(failed) > 0 {
		return nil, fmt.Errorf("no pod of dispatch says what it has counted: %w", errors.Join(failed...))
	}
	return tallies, nil
}

func (w *Watcher) selector() string {
	return "app.kubernetes.io/component=dispatch,ebb.dev/model in (" + strings.Join(w.cfg.Models, ",") + ")"
}

// processOf names a pod's process, which is another after each start of its container; nothing when it does not run.
func processOf(pod *corev1.Pod) string {
	if pod.Status.PodIP == "" || pod.Status.Phase != corev1.PodRunning {
		return ""
	}
	restarts := int32(0)
	for _, status := range pod.Status.ContainerStatuses {
		restarts += status.RestartCount
	}
	return pod.Name + "/" + string(pod.UID) + "/" + strconv.Itoa(int(restarts))
}

func (w *Watcher) scrape(ctx context.Context, ip string) (rollout.Tally, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	at := "http://" + net.JoinHostPort(ip, strconv.Itoa(w.cfg.Port)) + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return rollout.Tally{}, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return rollout.Tally{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return rollout.Tally{}, fmt.Errorf("%s: %s", at, resp.Status)
	}
	return tally.Parse(resp.Body, w.cfg.Network)
}
