// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certs issues and renews the serving certificates of the authenticator, of the admission webhook and of consoles, and the
// certificate authority that signs them.
//
// The published CA bundle always covers all serving certificates, even if a client read the bundle a while ago. A new authority is
// published long before it signs, and the old one stays published until it expires. The libraries for this task (pkg/server/tls/authority
// of cert-manager, open-policy-agent/cert-controller) replace an authority at once.
//
// All state is in the cluster, in the namespace of the controller and in those of the consoles:
//
//   - The Secret apikey-operator-ca holds the authorities, each as <serial>.crt and <serial>.key in PEM. The annotation
//     signs-from.keys.squirrel.dev/<serial> holds the time at which a published authority starts to sign.
//   - The ConfigMap apikey-operator-ca holds their certificates as ca.crt: the CA bundle of all clients. It exists in each namespace.
//   - The ValidatingWebhookConfiguration holds the same bundle, for the API server.
//   - The Secrets apikey-authenticator-tls and apikey-controller-webhook-tls hold the serving certificates, as does the Secret
//     apikey-console-tls in the namespace of each console.
//
// The Rotator reads these objects without a cache and writes them with their resource version as a precondition. The order of its writes
// makes it safe to stop after any of them, and to have two leaders for a moment:
//
//  1. The Rotator reads the ConfigMaps before the Secret of the authorities, and writes them after that Secret. A leader that knows fewer
//     authorities than the Secret holds therefore never overwrites the ConfigMap of a leader that knows them all. An authority that was
//     published stays published until it expires.
//  2. The Rotator schedules when an authority signs only after it has published the authority. It does not wait for the namespace of a
//     console in which it cannot write: that would stop the renewal of all certificates.
//  3. The Rotator issues serving certificates last, with an authority whose scheduled time has come.
//
// The first authority may not sign for a console that is added later: an authority is limited to the names of the servers that exist when
// it is created. So the Rotator creates another one, which signs for that console at once and for the others when all clients trust it.
//
// If an authority is damaged, or an object of another owner prevents publishing, the Rotator creates no authority and removes no trusted
// certificate. The authority that signs continues to sign.
//
// While the local clock differs from the API server's, the Rotator creates, schedules and removes no authority, except that it creates the
// first one. Serving certificates are easily replaced; their dates then follow the API server's clock.
//
// To replace all authorities at once, for example because a private key has leaked, delete their Secret.
package certs
