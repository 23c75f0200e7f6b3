package knative

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// stateKey is where a ConfigMap has the State.
const stateKey = "state.json"

// RecordsName is the name of the ConfigMap with the State of what a Service serves.
func RecordsName(service string) string { return "modelsync-" + service }

// Records keep a State in a ConfigMap; Kubernetes sees to it that nobody replaces what he has not read.
type Records struct {
	client          kubernetes.Interface
	namespace, name string
}

var _ rollout.Records = (*Records)(nil)

// NewRecords returns the Records of the network that a Service serves.
func NewRecords(client kubernetes.Interface, namespace, service string) *Records {
	return &Records{client, namespace, RecordsName(service)}
}

// Load reads the ConfigMap. `ko apply` makes an empty one.
func (r *Records) Load(ctx context.Context) (rollout.State, string, error) {
	var s rollout.State
	m, err := r.client.CoreV1().ConfigMaps(r.namespace).Get(ctx, r.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return s, "", nil
	}
	if err != nil {
		return s, "", fmt.Errorf("ConfigMap %s/%s: %w", r.namespace, r.name, err)
	}
	if text := m.Data[stateKey]; text != "" {
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return s, "", fmt.Errorf("ConfigMap %s/%s, %s: %w; remove that key to begin anew", r.namespace, r.name, stateKey, err)
		}
	}
	return s, m.ResourceVersion, nil
}

// Save writes the ConfigMap.
func (r *Records) Save(ctx context.Context, s rollout.State, revision string) (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("state of network %s: %w", s.Network, err)
	}
	maps := r.client.CoreV1().ConfigMaps(r.namespace)
	saved, err := maps.Get(ctx, r.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && revision == "":
		saved, err = maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: r.name, Labels: map[string]string{"app.kubernetes.io/part-of": "ebb"}},
			Data:       map[string]string{stateKey: string(text)},
		}, metav1.CreateOptions{})
	case apierrors.IsNotFound(err):
		return "", rollout.ErrConflict // somebody removed it
	case err != nil:
	case saved.ResourceVersion != revision:
		return "", rollout.ErrConflict
	default:
		if saved.Data == nil {
			saved.Data = map[string]string{}
		}
		saved.Data[stateKey] = string(text)
		saved, err = maps.Update(ctx, saved, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		return "", fmt.Errorf("%w: %w", rollout.ErrConflict, err)
	case err != nil:
		return "", fmt.Errorf("ConfigMap %s/%s: %w", r.namespace, r.name, err)
	}
	return saved.ResourceVersion, nil
}
