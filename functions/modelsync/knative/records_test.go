package knative_test

import (
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// versioned is a client of an API server that gives ConfigMaps resource versions.
func versioned() *kubefake.Clientset {
	client := kubefake.NewClientset()
	giveVersions(client, func(do func() error) error { return do() })
	return client
}

// giveVersions gives ConfigMaps the resource versions that an API server would, and refuses what was read too early. All that is
// written goes through write.
func giveVersions(client *kubefake.Clientset, write func(func() error) error) {
	var version atomic.Int64
	next := func() string { return strconv.FormatInt(version.Add(1), 10) }
	client.PrependReactor("create", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		m := action.(clienttesting.CreateAction).GetObject().(*corev1.ConfigMap).DeepCopy()
		m.Namespace = action.GetNamespace()
		return true, m, write(func() error {
			m.ResourceVersion = next()
			return client.Tracker().Create(configMaps, m, m.Namespace)
		})
	})
	client.PrependReactor("update", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		m := action.(clienttesting.UpdateAction).GetObject().(*corev1.ConfigMap).DeepCopy()
		return true, m, write(func() error {
			stored, err := client.Tracker().Get(configMaps, m.Namespace, m.Name)
			if err != nil {
				return err
			}
			if stored.(*corev1.ConfigMap).ResourceVersion != m.ResourceVersion {
				return apierrors.NewConflict(configMaps.GroupResource(), m.Name, nil)
			}
			m.ResourceVersion = next()
			return client.Tracker().Update(configMaps, m, m.Namespace)
		})
	})
}

func TestRecordsKeepAState(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		applied bool // `ko apply` made the ConfigMap
	}{{"in a ConfigMap that is there", true}, {"in one of their own", false}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client := versioned()
			maps := client.CoreV1().ConfigMaps(namespace)
			if tc.applied {
				_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "modelsync-" + service, Labels: map[string]string{"a": "b"}}}, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			records := knative.NewRecords(client, namespace, service)
			s, revision, err := records.Load(t.Context())
			require.NoError(t, err)
			require.Zero(t, s)
			s = rollout.State{Network: network, Serving: 2, Kept: []int64{1, 2}}
			first, err := records.Save(t.Context(), s, revision)
			require.NoError(t, err)
			s.Serving = 1
			second, err := records.Save(t.Context(), s, first)
			require.NoError(t, err)
			got, revision, err := knative.NewRecords(client, namespace, service).Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, s, got)
			require.Equal(t, second, revision)

			_, err = records.Save(t.Context(), rollout.State{Network: network, Serving: 7}, first)
			require.ErrorIs(t, err, rollout.ErrConflict)
			_, err = records.Save(t.Context(), rollout.State{Network: network, Serving: 7}, "")
			require.ErrorIs(t, err, rollout.ErrConflict)
			got, _, err = records.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, s, got)
			if m, err := maps.Get(t.Context(), "modelsync-"+service, metav1.GetOptions{}); tc.applied {
				require.NoError(t, err)
				require.Equal(t, map[string]string{"a": "b"}, m.Labels)
			}
		})
	}
}

func TestRecordsThatSomebodyRemovedAreNotMadeAgain(t *testing.T) {
	t.Parallel()
	client := versioned()
	records := knative.NewRecords(client, namespace, service)
	revision, err := records.Save(t.Context(), rollout.State{Network: network}, "")
	require.NoError(t, err)
	require.NoError(t, client.CoreV1().ConfigMaps(namespace).Delete(t.Context(), "modelsync-"+service, metav1.DeleteOptions{}))
	_, err = records.Save(t.Context(), rollout.State{Network: network}, revision)
	require.ErrorIs(t, err, rollout.ErrConflict)
}

func TestRecordsThatWereNotWrittenHereSayWhatToDo(t *testing.T) {
	t.Parallel()
	client := versioned()
	_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "modelsync-" + service}, Data: map[string]string{"state.json": "{"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, _, err = knative.NewRecords(client, namespace, service).Load(t.Context())
	require.ErrorContains(t, err, "remove that key to begin anew")
}
