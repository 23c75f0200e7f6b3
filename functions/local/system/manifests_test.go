package system

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const configFolder = "../../../config/"

func TestEveryModelOfTheProjectHasItsTrigger(t *testing.T) {
	t.Parallel()
	m, err := readManifests([]string{configFolder + "models"})
	require.NoError(t, err)
	names := make([]string, 0, len(m.models))
	for _, model := range m.models {
		names = append(names, model.Name)
		require.Equal(t, "inception_v3", model.Serving.Model)
	}
	require.Equal(t, []string{"cat", "dog", "imagenet"}, names)
	require.Len(t, m.triggers, 3)
}

func TestALaterFolderReplacesModelsAndKeepsTheirOrderAndTriggers(t *testing.T) {
	t.Parallel()
	m, err := readManifests([]string{configFolder + "models", configFolder + "overlays/resnet50"})
	require.NoError(t, err)
	questions := make([]string, 0, len(m.models))
	for _, model := range m.models {
		questions = append(questions, model.Name+": "+model.Question)
		require.Equal(t, "resnet50", model.Serving.Model)
		require.Len(t, model.Labels, 1000)
	}
	require.Equal(t, []string{"cat: Is it a cat?", "dog: Is it a dog?", "imagenet: "}, questions)
	require.Len(t, m.triggers, 3)
}
