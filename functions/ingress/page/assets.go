package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assetFiles embed.FS

const assetsPath = Path + "/assets/"

type asset struct {
	data        []byte
	hash        string
	contentType string
}

var assets = loadAssets()

// loadAssets reads the embedded files. Their types are named here and not taken from the system's table, so that they
// are the same everywhere.
func loadAssets() map[string]asset {
	types := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic(err) // not built in
	}
	loaded := make(map[string]asset, len(entries))
	for _, entry := range entries {
		data, err := assetFiles.ReadFile(path.Join("assets", entry.Name()))
		if err != nil {
			panic(err)
		}
		contentType, ok := types[path.Ext(entry.Name())]
		if !ok {
			panic("page: no content type for " + entry.Name())
		}
		sum := sha256.Sum256(data)
		loaded[entry.Name()] = asset{data: data, hash: hex.EncodeToString(sum[:8]), contentType: contentType}
	}
	return loaded
}

// assetURL is the address of an embedded file. It has the content's hash in it, so it may be cached for ever.
func assetURL(name string) string {
	return assetsPath + assets[name].hash + "/" + name
}

// serveAsset answers with an embedded file. While two revisions share the traffic, a page from one may ask the other for
// its files: it gets the ones that are here, which nobody may cache under that name.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	file, ok := assets[name]
	if !ok {
		notFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Content-Type", file.contentType)
	header.Set("Cache-Control", "no-store")
	if r.PathValue("hash") == file.hash {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(file.data))
}
