// Package image makes images of networks: a model server's image and one more layer, with one version of a network where the
// server looks for it. It is to models what ko is to programs: there is no Docker and nothing is run, only a registry is spoken
// with.
//
// The same version on the same base is the same image, digest and all, whoever makes it and whenever; what the registry has
// already is not pushed again. What an image was made of is in its labels, so that nobody has to remember it.
//
// The package knows nothing of where versions come from and who runs the images.
package image
