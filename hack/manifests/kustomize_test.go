package manifests

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"knative.dev/serving/pkg/apis/config"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// manifestOf is what `kubectl kustomize --load-restrictor LoadRestrictionsNone config/overlays/OVERLAY` prints.
func manifestOf(t *testing.T, overlay string) []byte {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionUnspecified // as the file says
	options.LoadRestrictions = types.LoadRestrictionsNone
	made, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), folder+"/overlays/"+overlay)
	require.NoError(t, err)
	manifest, err := made.AsYaml()
	require.NoError(t, err)
	return manifest
}

// kustomized is the objects of an overlay.
func kustomized(ctx context.Context, t *testing.T, overlay string) []Object {
	t.Helper()
	objects, err := Read(ctx, manifestOf(t, overlay))
	require.NoError(t, err)
	return objects
}

// withFeatures is a context for a Knative with these keys in its ConfigMap config-features.
func withFeatures(ctx context.Context, t *testing.T, features map[string]string) context.Context {
	t.Helper()
	enabled, err := config.NewFeaturesConfigFromMap(features)
	require.NoError(t, err)
	return config.ToContext(ctx, &config.Config{Features: enabled})
}
