package main

import (
	"fmt"
	"regexp"
	"strings"
)

// settings are what an Ebb on Google Cloud is called and where it is. All names in the project are made of these.
type settings struct {
	project, region, name, domain string
}

// What they may be, which is less than Google takes: none can be read as a flag, as two words or as a part of a path, and what is made
// of them is within Google's limits.
var (
	projectForm = regexp.MustCompile(`^[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	regionForm  = regexp.MustCompile(`^[a-z]{2,20}-[a-z]{2,20}[0-9]{1,2}$`)
	nameForm    = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)
	labelForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func (s settings) check() error {
	switch {
	case !projectForm.MatchString(s.project):
		return fmt.Errorf("-project (or EBB_PROJECT) is %q: it is the id of a project of Google Cloud's, 6 to 30 of a-z, 0-9 and -, as my-project-4711", s.project)
	case !regionForm.MatchString(s.region):
		return fmt.Errorf("-region (or EBB_REGION) is %q: it is a region of Google Cloud's and not a zone, as europe-west4", s.region)
	case !nameForm.MatchString(s.name):
		return fmt.Errorf("-name (or EBB_NAME) is %q: it is at most 20 of a-z, 0-9 and -, beginning with a letter", s.name)
	case !isDomain(s.domain):
		return fmt.Errorf("-domain (or EBB_DOMAIN) is %q: it is a name of yours in lower case, as ebb.example.com", s.domain)
	}
	return nil
}

func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if !labelForm.MatchString(label) {
			return false
		}
	}
	return len(labels) > 1 && len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// mark is the label, or where there are no labels the description, by which what this program made is known.
func (s settings) mark() string { return "ebb=" + s.name }

func (s settings) bucket() string       { return "gs://" + s.bucketName() }
func (s settings) bucketName() string   { return s.project + "-" + s.name + "-models" }
func (s settings) models() string       { return s.bucket() + "/resnet" } // the folder of versions
func (s settings) nodesName() string    { return s.name + "-nodes" }
func (s settings) modelsName() string   { return s.name + "-models" }
func (s settings) syncName() string     { return s.name + "-modelsync" }
func (s settings) nodes() string        { return s.account(s.nodesName()) }
func (s settings) modelsReader() string { return s.account(s.modelsName()) }
func (s settings) modelsync() string    { return s.account(s.syncName()) }
func (s settings) repository() string {
	return s.region + "-docker.pkg.dev/" + s.project + "/" + s.name
}
func (s settings) account(name string) string {
	return name + "@" + s.project + ".iam.gserviceaccount.com"
}

// workload is one of Ebb's Kubernetes accounts, as Google knows it.
func (s settings) workload(account string) string {
	return "serviceAccount:" + s.project + ".svc.id.goog[ebb/" + account + "]"
}
