package system_test

import (
	"bytes"
	"encoding/json"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blocks finds the fenced blocks of Markdown: language and text.
var blocks = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

func TestTheReadmesCurlCommandsAnswerAsItSays(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(root + "/README.md")
	require.NoError(t, err)
	folder := t.TempDir()
	cat := asJPEG(t, read(t, "chelsea.png"))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "cat.jpg"), cat, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "README.md"), readme, 0o600))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(cat) }))
	t.Cleanup(web.Close)

	commands := 0
	found := blocks.FindAllStringSubmatch(string(readme), -1)
	for i, block := range found {
		language, text := block[1], block[2]
		if language != "sh" || !strings.Contains(text, "curl") {
			continue
		}
		commands++
		text = strings.ReplaceAll(text, "http://127.0.0.1:8080", base)
		text = strings.ReplaceAll(text, "https://tensorflow.org/images/blogs/serving", web.URL) // no web here but our own
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", text)
		cmd.Dir = folder
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s\n%s", text, stderr.String())
		var got any
		require.NoError(t, json.Unmarshal(out, &got), "%s\n%s", text, out)
		if i+1 == len(found) || found[i+1][1] != "json" {
			require.NotContains(t, got, "error", "%s", text)
			require.NotContains(t, got, "type", "%s", text)
			continue
		}
		var documented any
		require.NoError(t, json.Unmarshal([]byte(found[i+1][2]), &documented), "the answer in the README to\n%s", text)
		require.Equal(t, shape(documented), shape(got), "the answer to\n%s", text)
	}
	require.Equal(t, 9, commands, "commands in the README")
}

// shape is what a JSON value is made of: the names of objects, the first element of arrays, and kinds of values.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		s := map[string]any{}
		for name, value := range v {
			s[name] = shape(value)
		}
		return s
	case []any:
		if len(v) == 0 {
			return []any{}
		}
		return []any{shape(v[0])}
	case string:
		return "a string"
	case float64:
		return "a number"
	default:
		return v
	}
}

func asJPEG(t *testing.T, data []byte) []byte {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, jpeg.Encode(&out, img, &jpeg.Options{Quality: 92}))
	return out.Bytes()
}
