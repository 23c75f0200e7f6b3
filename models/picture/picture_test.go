package picture_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/picture/picturetest"
)

// requireScene requires that every pixel is as picturetest's Scene or Faded has it, up to the losses of a lossy format.
func requireScene(t *testing.T, s picturetest.Sample, img image.Image) {
	t.Helper()
	require.Equal(t, image.Rect(0, 0, picturetest.Width, picturetest.Height), img.Bounds())
	want := picturetest.Scene()
	if s.Transparent {
		draw.Draw(want, image.Rect(0, picturetest.Height/2, picturetest.Width, picturetest.Height), image.White, image.Point{}, draw.Src)
	}
	tolerance := 0
	if s.Lossy {
		tolerance = 6
	}
	for y := range picturetest.Height {
		for x := range picturetest.Width {
			if s.Lossy && s.Transparent && y/8 == picturetest.Height/2/8 {
				continue // the lossy colour next to what is transparent
			}
			w, g := want.RGBAAt(x, y), color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
			if far(w.R, g.R, tolerance) || far(w.G, g.G, tolerance) || far(w.B, g.B, tolerance) || g.A != 255 {
				require.Failf(t, "wrong colour", "%d, %d: want %v, got %v", x, y, w, g)
			}
		}
	}
}

func far(a, b uint8, tolerance int) bool { return max(int(a)-int(b), int(b)-int(a)) > tolerance }

func TestEveryFormatIsInspectedAndDecodedUprightOnWhite(t *testing.T) {
	t.Parallel()
	for _, s := range picturetest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			info, err := picture.Inspect(s.Data, picture.Limits{})
			require.NoError(t, err)
			require.Equal(t, picture.Info{MediaType: s.MediaType, Width: picturetest.Width, Height: picturetest.Height}, info)
			img, err := picture.Decode(s.Data, picture.Limits{})
			require.NoError(t, err)
			requireScene(t, s, img)
		})
	}
}

func TestOrientationOfWebPIsHonoured(t *testing.T) {
	t.Parallel()
	for _, block := range [][]byte{picturetest.EXIF(6), append([]byte("Exif\x00\x00"), picturetest.EXIF(6)...)} {
		data := picturetest.WithEXIFBlock(picturetest.LosslessWebP(), block)
		info, err := picture.Inspect(data, picture.Limits{})
		require.NoError(t, err)
		require.Equal(t, picture.Info{MediaType: "image/webp", Width: picturetest.Height, Height: picturetest.Width}, info)
		img, err := picture.Decode(data, picture.Limits{})
		require.NoError(t, err)
		require.Equal(t, picturetest.BottomLeft, img.At(0, 0)) // turned clockwise
		require.Equal(t, picturetest.TopLeft, img.At(picturetest.Height-1, 0))
		require.Equal(t, color.RGBA{}, img.At(picturetest.Height, 0))
	}
}

func TestGrayPicturesAreGray(t *testing.T) {
	t.Parallel()
	gray := image.NewGray(image.Rect(0, 0, 16, 16))
	draw.Draw(gray, gray.Rect, image.NewUniform(color.Gray{Y: 90}), image.Point{}, draw.Src)
	for _, data := range [][]byte{picturetest.JPEG(gray), picturetest.PNG(gray), picturetest.BMP(gray)} {
		img, err := picture.Decode(data, picture.Limits{})
		require.NoError(t, err)
		require.Equal(t, color.RGBA{90, 90, 90, 255}, img.At(3, 4))
	}
}

func TestInkOfCMYKIsNotInverted(t *testing.T) {
	t.Parallel()
	black := image.NewUniform(color.CMYK{C: 20, M: 30, Y: 40, K: 200})
	m := image.NewCMYK(image.Rect(0, 0, 16, 16))
	draw.Draw(m, m.Rect, black, image.Point{}, draw.Src)
	want := color.RGBAModel.Convert(black.C).(color.RGBA)
	for _, data := range [][]byte{picturetest.CMYKJPEG(m), picturetest.YCCKJPEG(m)} {
		img, err := picture.Decode(data, picture.Limits{})
		require.NoError(t, err)
		got := img.At(5, 5).(color.RGBA)
		require.InDelta(t, want.R, got.R, 2)
		require.InDelta(t, want.G, got.G, 2)
		require.InDelta(t, want.B, got.B, 2)
	}
}

func TestGIFFrameSmallerThanItsCanvasLiesOnWhite(t *testing.T) {
	t.Parallel()
	part := picturetest.Paletted(picturetest.Scene()).SubImage(image.Rect(10, 5, 30, 15)).(*image.Paletted)
	img, err := picture.Decode(picturetest.GIF(part), picture.Limits{})
	require.NoError(t, err)
	require.Equal(t, image.Rect(0, 0, picturetest.Width, picturetest.Height), img.Bounds())
	white := color.RGBA{255, 255, 255, 255}
	for at, want := range map[image.Point]color.RGBA{
		{0, 0}: white, {9, 5}: white, {30, 14}: white, {10, 5}: picturetest.TopLeft, {29, 14}: picturetest.TopLeft,
	} {
		require.Equal(t, want, img.At(at.X, at.Y), "%v", at)
	}
}

func TestHostileEXIFIsIgnored(t *testing.T) {
	t.Parallel()
	edit := func(at int, b ...byte) []byte {
		block := picturetest.EXIF(6)
		copy(block[at:], b)
		return block
	}
	tests := map[string][]byte{
		"empty":                       {},
		"header cut short":            picturetest.EXIF(6)[:7],
		"directory beyond the end":    edit(4, 0x7f, 0xff, 0xff, 0xff),
		"directory at 4 GiB":          edit(4, 0xff, 0xff, 0xff, 0xff),
		"directory cut short":         picturetest.EXIF(6)[:30],
		"no byte order":               edit(0, 'X', 'X'),
		"65535 entries, none of them": append(append([]byte("MM\x00*\x00\x00\x00\x08\xff\xff"), make([]byte, 120)...), picturetest.EXIF(6)[10:20]...),
		"orientation 0":               picturetest.EXIF(0),
		"orientation 9":               picturetest.EXIF(9),
		"orientation 262":             edit(30, 1),
		"orientation of another type": edit(25, 4),
		"two orientations":            edit(29, 2),
	}
	for name, block := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, file := range [][]byte{
				picturetest.JPEG(picturetest.Scene()), picturetest.PNG(picturetest.Scene()), picturetest.LosslessWebP(),
			} {
				info, err := picture.Inspect(picturetest.WithEXIFBlock(file, block), picture.Limits{})
				require.NoError(t, err)
				require.Equal(t, picturetest.Width, info.Width)
			}
		})
	}
}

func TestWhatIsNotDecodedIsNamed(t *testing.T) {
	t.Parallel()
	bmff := func(brand string) string { return "\x00\x00\x00\x18ftyp" + brand + "\x00\x00\x00\x00" }
	tests := []struct {
		name, data string
		err        error
		want       string
	}{
		{"nothing", "", picture.ErrNotPicture, "it is empty"},
		{"HEIC", bmff("heic"), picture.ErrUnsupported, "a HEIC photo"},
		{"HEIF", bmff("mif1"), picture.ErrUnsupported, "a HEIF picture"},
		{"AVIF", bmff("avif"), picture.ErrUnsupported, "an AVIF picture"},
		{"video", bmff("isom"), picture.ErrNotPicture, "a video (MP4 or QuickTime)"},
		{"JPEG XL", "\xff\x0a\xfa\x7f", picture.ErrUnsupported, "a JPEG XL picture"},
		{"JPEG 2000", "\x00\x00\x00\x0cjP  \r\n\x87\n", picture.ErrUnsupported, "a JPEG 2000 picture"},
		{"SVG", `<svg xmlns="http://www.w3.org/2000/svg"/>`, picture.ErrUnsupported, "an SVG drawing"},
		{"SVG behind a prologue", "\ufeff\n<?xml version='1.0'?>\n<!-- x --><SVG/>", picture.ErrUnsupported, "an SVG drawing"},
		{"XML", "<?xml version='1.0'?><a/>", picture.ErrNotPicture, "XML"},
		{"HTML", "\n\n<!DOCTYPE html><html><body><img src=x>", picture.ErrNotPicture, "a web page (HTML)"},
		{"HTML without a type", "<HTML>", picture.ErrNotPicture, "a web page (HTML)"},
		{"PDF", "%PDF-1.7\n%\xe2\xe3\xcf\xd3", picture.ErrNotPicture, "a PDF document"},
		{"ZIP", "PK\x03\x04\x14\x00", picture.ErrNotPicture, "a ZIP archive"},
		{"icon", "\x00\x00\x01\x00\x01\x00", picture.ErrUnsupported, "a Windows icon"},
		{"data URL", "data:image/png;base64,iVBORw0KGgo=", picture.ErrNotPicture, "a data: URL"},
		{"base64", "/9j/4AAQSkZJRgABAQ", picture.ErrNotPicture, "base64 text"},
		{"JSON", ` {"url": "x"}`, picture.ErrNotPicture, "JSON"},
		{"address", "https://example.org/cat.jpg", picture.ErrNotPicture, "an address"},
		{"text", "Is it a cat?", picture.ErrNotPicture, "text"},
		{"text that begins as a bitmap", "BMI is 22, and what follows is long enough", picture.ErrNotPicture, "text"},
		{"text whose last character is cut", strings.Repeat("x", 1022) + "€", picture.ErrNotPicture, "text"},
		{"bytes", "\x01\x02\x03\x04", picture.ErrNotPicture, "unknown binary data"},
		{"Latin-1", "caf\xe9 au lait", picture.ErrNotPicture, "unknown binary data"},
		{"half a signature", "\x89PNG\r\n", picture.ErrNotPicture, "unknown binary data"},
		{"RIFF of something else", "RIFF\x00\x00\x00\x00WAVEfmt ", picture.ErrNotPicture, "a sound"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			info, err := picture.Inspect([]byte(tt.data), picture.Limits{})
			require.ErrorIs(t, err, tt.err)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "JPEG, PNG, GIF, WebP, BMP and TIFF work")
			require.Zero(t, info)
			_, err = picture.Decode([]byte(tt.data), picture.Limits{})
			require.ErrorIs(t, err, tt.err)
		})
	}
}

func TestAnimatedWebPIsUnsupported(t *testing.T) {
	t.Parallel()
	_, err := picture.Inspect(picturetest.AnimatedWebP(), picture.Limits{})
	require.ErrorIs(t, err, picture.ErrUnsupported)
	require.ErrorContains(t, err, "animated WebP")
}

func TestVariantsThatNoDecoderTakesAreUnsupported(t *testing.T) {
	t.Parallel()
	patch := func(data []byte, at int, b ...byte) []byte {
		copy(data[at:], b)
		return data
	}
	scene := picturetest.Scene()
	sof := bytes.Index(picturetest.JPEG(scene), []byte{0xff, 0xc0})
	adobe := bytes.Index(picturetest.CMYKJPEG(scene), []byte("Adobe"))
	photometric := int(binary.LittleEndian.Uint32(picturetest.TIFF(scene, 1)[4:])) + 2 + 4*12 + 8 // the fifth tag's value
	tests := map[string][]byte{
		"JPEG of 12 bits":           patch(picturetest.JPEG(scene), sof+4, 12),
		"lossless JPEG":             patch(picturetest.JPEG(scene), sof+1, 0xc3),
		"CMYK JPEG without Adobe":   patch(picturetest.CMYKJPEG(scene), adobe, 'X'),
		"run-length compressed BMP": patch(picturetest.BMP(picturetest.Paletted(scene)), 30, 1),
		"TIFF of CIE Lab":           patch(picturetest.TIFF(scene, 1), photometric, 8),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := picture.Decode(data, picture.Limits{})
			require.ErrorIs(t, err, picture.ErrUnsupported)
			require.ErrorContains(t, err, "save it as an ordinary JPEG or PNG")
		})
	}
}

func TestLimitsAreCheckedByTheHeader(t *testing.T) {
	t.Parallel()
	for _, s := range picturetest.Samples() {
		_, err := picture.Inspect(s.Data, picture.Limits{MaxPixels: picturetest.Width * picturetest.Height, MaxSide: picturetest.Width})
		require.NoError(t, err, s.Name)
		_, err = picture.Inspect(s.Data, picture.Limits{MaxPixels: picturetest.Width*picturetest.Height - 1})
		require.ErrorIs(t, err, picture.ErrTooManyPixels, s.Name)
		_, err = picture.Decode(s.Data, picture.Limits{MaxSide: picturetest.Width - 1})
		require.ErrorIs(t, err, picture.ErrTooManyPixels, s.Name)
	}
}

// bombs are small files whose headers claim 60000 x 60000 pixels or as many as the format allows.
func bombs() map[string][]byte {
	be, le := binary.BigEndian, binary.LittleEndian
	scene := picturetest.Scene()
	jpg := picturetest.JPEG(scene)
	sof := bytes.Index(jpg, []byte{0xff, 0xc0})
	be.PutUint16(jpg[sof+5:], 60000)
	be.PutUint16(jpg[sof+7:], 60000)
	png := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"), 60000)
	png = append(be.AppendUint32(png, 60000), 8, 6, 0, 0, 0)
	png = be.AppendUint32(png, crcOf(png[12:]))
	gif := picturetest.GIF(picturetest.Paletted(scene))
	le.PutUint16(gif[6:], 60000)
	le.PutUint16(gif[8:], 60000)
	bmp := picturetest.BMP(scene)
	le.PutUint32(bmp[18:], 60000)
	le.PutUint32(bmp[22:], 60000)
	tiff := picturetest.TIFF(scene, 1)
	ifd := le.Uint32(tiff[4:])
	le.PutUint32(tiff[ifd+2+8:], 60000)
	le.PutUint32(tiff[ifd+2+12+8:], 60000)
	webp := picturetest.LosslessWebP()
	le.PutUint32(webp[21:], 16383<<14|16383)
	return map[string][]byte{"JPEG": jpg, "PNG": png, "GIF": gif, "BMP": bmp, "TIFF": tiff, "WebP": webp}
}

func TestBombsAreRefusedBeforeTheyTakeMemory(t *testing.T) { // not parallel: it counts what is allocated
	for name, data := range bombs() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := picture.Decode(data, picture.Limits{})
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, picture.ErrTooManyPixels)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(200<<10))
		})
	}
}

func TestFilesCutShortAreCorrupt(t *testing.T) {
	t.Parallel()
	for _, s := range picturetest.Samples() {
		if s.Name == "GIF of two frames" {
			continue // only its first frame matters
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			for _, keep := range []int{len(s.Data) * 3 / 4, len(s.Data) / 2, len(s.Data) / 4, 20} {
				_, err := picture.Decode(s.Data[:keep], picture.Limits{})
				require.Error(t, err, "%d of %d bytes", keep, len(s.Data))
				require.True(t, errorIsAny(err, picture.ErrCorrupt, picture.ErrNotPicture), "%v", err)
			}
		})
	}
}

func TestJPEGWithEndlessScansIsRefused(t *testing.T) {
	t.Parallel()
	data := picturetest.JPEG(picturetest.Scene())
	sos := bytes.Index(data, []byte{0xff, 0xda})
	scan := data[sos : len(data)-2]
	many := append(bytes.Clone(data[:sos]), bytes.Repeat(scan, 1000)...)
	many = append(many, 0xff, 0xd9)
	_, err := picture.Decode(many, picture.Limits{})
	require.ErrorIs(t, err, picture.ErrUnsupported)
	require.ErrorContains(t, err, "1000 scans")
	_, err = picture.EncodeJPEG(many, picture.Limits{})
	require.ErrorIs(t, err, picture.ErrUnsupported)
	require.ErrorContains(t, err, "1000 scans")
}

func TestErrorsAreForPeople(t *testing.T) {
	t.Parallel()
	data := picturetest.PNG(picturetest.Scene())
	_, err := picture.Decode(data[:20], picture.Limits{})
	require.EqualError(t, err, "corrupt picture: the PNG is cut short")
	_, err = picture.Decode(data[:60], picture.Limits{})
	require.EqualError(t, err, "corrupt picture: the PNG is damaged: png: invalid format: not enough pixel data")
	_, err = picture.Inspect(data, picture.Limits{MaxPixels: 1500})
	require.EqualError(t, err, "picture too large: it has 64 x 32 pixels, at most 0.0015 million in all are allowed; make it smaller")
	_, err = picture.Inspect(data, picture.Limits{MaxSide: 60})
	require.EqualError(t, err, "picture too large: it has 64 x 32 pixels, at most 60 a side are allowed; make it smaller")
	_, err = picture.Inspect([]byte("%PDF-1.4"), picture.Limits{})
	require.EqualError(t, err, "not a picture: it looks like a PDF document; JPEG, PNG, GIF, WebP, BMP and TIFF work")
}

func TestEncodeJPEGPassesUprightBaselineOn(t *testing.T) {
	t.Parallel()
	for _, data := range [][]byte{
		picturetest.JPEG(picturetest.Scene()), picturetest.JPEG(image.NewGray(image.Rect(0, 0, 9, 9))),
		picturetest.WithEXIF(picturetest.JPEG(picturetest.Scene()), 1),
	} {
		got, err := picture.EncodeJPEG(data, picture.Limits{})
		require.NoError(t, err)
		require.Same(t, &data[0], &got[0])
		require.Len(t, got, len(data))
	}
}

func TestEncodeJPEGMakesUprightBaselineOfEverything(t *testing.T) {
	t.Parallel()
	for _, s := range picturetest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			got, err := picture.EncodeJPEG(s.Data, picture.Limits{})
			require.NoError(t, err)
			again, err := picture.EncodeJPEG(got, picture.Limits{})
			require.NoError(t, err)
			require.Same(t, &got[0], &again[0], "it is baseline and upright")
			img, err := picture.Decode(got, picture.Limits{})
			require.NoError(t, err)
			s.Lossy = true
			requireScene(t, s, img)
		})
	}
}

func TestEncodeJPEGRefusesWhatDecodeRefuses(t *testing.T) {
	t.Parallel()
	_, err := picture.EncodeJPEG([]byte("text"), picture.Limits{})
	require.ErrorIs(t, err, picture.ErrNotPicture)
	_, err = picture.EncodeJPEG(picturetest.JPEG(picturetest.Scene()), picture.Limits{MaxPixels: 100})
	require.ErrorIs(t, err, picture.ErrTooManyPixels)
	_, err = picture.EncodeJPEG(picturetest.PNG(picturetest.Scene())[:70], picture.Limits{})
	require.ErrorIs(t, err, picture.ErrCorrupt)
}

func BenchmarkInspect(b *testing.B) {
	data := picturetest.WithEXIF(picturetest.JPEG(picturetest.Photo(1000, 1000)), 6)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := picture.Inspect(data, picture.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	photo := picturetest.Photo(1000, 1000)
	for name, data := range map[string][]byte{
		"JPEG": picturetest.JPEG(photo), "turned JPEG": picturetest.WithEXIF(picturetest.JPEG(photo), 6), "PNG": picturetest.PNG(photo),
	} {
		b.Run(fmt.Sprintf("%s of %d KB", name, len(data)>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := picture.Decode(data, picture.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
