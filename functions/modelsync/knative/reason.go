package knative

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models/tfserving"
)

const (
	// askTimeout is for a question that a server that is there answers at once.
	askTimeout = 3 * time.Second
	// crashes is after how many ends a server is taken to be unable to run with the version.
	crashes = 3
	// defaultPort is where a server listens whose container does not say it.
	defaultPort = 8500
)

// ready waits until a revision is ready. When the version keeps it from that, the error is ErrRefused, with the server's reason;
// when it is the cluster, it is worth another try.
func (t *Target) ready(ctx context.Context, revision string, c rollout.Candidate) error {
	err := t.until(ctx, t.cfg.ReadyTimeout, t.watchRevisions, func(ctx context.Context) (string, error) {
		r, err := t.cfg.Serving.ServingV1().Revisions(t.cfg.Namespace).Get(ctx, revision, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return "", fmt.Errorf("revision %s was deleted", revision)
		case err != nil:
			return "", fmt.Errorf("revision %s: %w", revision, err)
		case r.IsReady():
			return "", nil
		}
		return t.trouble(ctx, r, c)
	})
	if err != nil {
		return fmt.Errorf("version %d: %w", c.Version, err)
	}
	return nil
}

// trouble says what a revision that is not ready waits for.
func (t *Target) trouble(ctx context.Context, r *servingv1.Revision, c rollout.Candidate) (string, error) {
	pods, err := t.pods(ctx, r.Name)
	if err != nil {
		return "", err
	}
	for i := range pods {
		waiting, err := t.podTrouble(ctx, r, &pods[i], c)
		if err != nil || waiting != "" {
			return waiting, err
		}
	}
	if ready := r.Status.GetCondition(servingv1.RevisionConditionReady); ready != nil && ready.Message != "" {
		return fmt.Sprintf("revision %s: %s: %s", r.Name, ready.Reason, ready.Message), nil
	}
	return "revision " + r.Name + " is starting", nil
}

func (t *Target) podTrouble(ctx context.Context, r *servingv1.Revision, pod *corev1.Pod, c rollout.Candidate) (string, error) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return "there is no room for it: " + condition.Message, nil
		}
	}
	container := containerOf(&r.Spec)
	for _, status := range pod.Status.ContainerStatuses {
		if container == nil || status.Name != nameOf(container) {
			continue
		}
		if ended := endOf(status); ended != nil && ended.Reason == "OOMKilled" {
			return "", fmt.Errorf("%w: the server needs more memory with it than its container has (%s)", rollout.ErrRefused, container.Resources.Limits.Memory())
		} else if ended != nil && status.RestartCount >= crashes {
			return "", fmt.Errorf("%w: the server ends with it: %s", rollout.ErrRefused, endText(ended))
		} else if ended != nil {
			return "the server ended: " + endText(ended), nil
		}
		if waiting := status.State.Waiting; waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing" {
			return waiting.Reason + ": " + waiting.Message, nil
		}
	}
	versions, err := t.status(ctx, podAddress(r, pod))
	if err != nil {
		return "", nil //nolint:nilerr // a server that does not answer yet is one that starts
	}
	return "", refusedBy(versions, c.Version)
}

// nameOf is the name of a container that has a status. Knative gives one to those that have none.
func nameOf(c *corev1.Container) string {
	if c.Name == "" {
		return "user-container"
	}
	return c.Name
}

func endOf(status corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if status.State.Terminated != nil {
		return status.State.Terminated
	}
	return status.LastTerminationState.Terminated
}

func endText(ended *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("%s, exit code %d", ended.Reason, ended.ExitCode)
	if ended.Message != "" {
		text += ": " + ended.Message
	}
	return text
}

// refusedBy is an error when the server gave the version up.
func refusedBy(versions []tfserving.VersionStatus, version int64) error {
	for _, v := range versions {
		if v.Version == version && v.Err != nil {
			return fmt.Errorf("%w: the server cannot load it: %w", rollout.ErrRefused, v.Err)
		}
	}
	return nil
}

// givenUp says whether Knative has given a revision up, so that it takes another one to try again.
func (t *Target) givenUp(ctx context.Context, r *servingv1.Revision) (bool, error) {
	if !r.IsFailed() {
		return false, nil
	}
	pods, err := t.pods(ctx, r.Name)
	return len(pods) == 0, err
}

// answers waits until the candidate answers at its address.
func (t *Target) answers(ctx context.Context, address string, c rollout.Candidate) error {
	instead := "" // what it answered
	err := t.until(ctx, t.cfg.ReadyTimeout, t.watchService, func(ctx context.Context) (string, error) {
		versions, err := t.status(ctx, address)
		if err != nil {
			return cmp.Or(instead, err.Error()), nil
		}
		if err := refusedBy(versions, c.Version); err != nil {
			return "", err
		}
		if latest(versions) == c.Version {
			return "", nil
		}
		instead = fmt.Sprintf("the server at %s serves version %d instead; is it told another folder of networks than its variable %s says?", address, latest(versions), modelBase)
		return instead, nil
	})
	if err != nil {
		return fmt.Errorf("version %d does not answer: %w", c.Version, err)
	}
	return nil
}

// ask asks what a revision serves whose annotations do not say it, and notes it at the Service, so that it need not run to be
// asked again.
func (t *Target) ask(ctx context.Context, svc *servingv1.Service, r *servingv1.Revision) (int64, error) {
	var version int64
	err := t.until(ctx, t.cfg.ReadyTimeout, t.watchRevisions, func(ctx context.Context) (string, error) {
		pods, err := t.pods(ctx, r.Name)
		if err != nil {
			return "", err
		}
		for i := range pods {
			versions, err := t.status(ctx, podAddress(r, &pods[i]))
			if version = latest(versions); err == nil && version != 0 {
				return "", nil
			}
		}
		// What has most of the traffic comes up when the Service is asked, whatever comes of it.
		if address := svc.Status.Address; len(pods) == 0 && address != nil && address.URL != nil {
			_, err = t.status(ctx, hostPort(address.URL))
		}
		return fmt.Sprintf("revision %s does not say which version it serves: %v", r.Name, err), nil
	})
	if err != nil {
		return 0, err
	}
	_, err = t.update(ctx, func(svc *servingv1.Service) error {
		known := readAsked(svc)
		known[r.Name] = version
		writeAsked(svc, known)
		return nil
	})
	return version, err
}

// latest is the newest version that is served.
func latest(versions []tfserving.VersionStatus) (newest int64) {
	for _, v := range versions {
		if v.Available() {
			newest = max(newest, v.Version)
		}
	}
	return newest
}

// status asks the server at an address about the network.
func (t *Target) status(ctx context.Context, address string) (versions []tfserving.VersionStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := tfserving.Dial(address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return client.Status(ctx, tfserving.Spec{Model: t.cfg.Network})
}

// pods are those of a revision that run or are to run.
func (t *Target) pods(ctx context.Context, revision string) ([]corev1.Pod, error) {
	list, err := t.cfg.Kubernetes.CoreV1().Pods(t.cfg.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set{serving.RevisionLabelKey: revision}.String(),
	})
	if err != nil {
		return nil, fmt.Errorf("pods of revision %s: %w", revision, err)
	}
	running := list.Items[:0]
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			running = append(running, pod)
		}
	}
	return running, nil
}

func podAddress(r *servingv1.Revision, pod *corev1.Pod) string {
	port := int32(defaultPort)
	if c := containerOf(&r.Spec); c != nil && len(c.Ports) > 0 {
		port = c.Ports[0].ContainerPort
	}
	return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port)))
}
