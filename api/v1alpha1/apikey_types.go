// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The API server's error for a rule of a string repeats the string, and for a rule of an object it does not. A field that a user may set to
// a token by mistake therefore has its rules at the object that contains it, with a fieldPath. The maximum length of tokenHash is that of
// tokens, because the error for a longer string does not state what to do.

// APIKey declares an API key for one app. A controller mints its token once, keeps only the token's hash in the status, and
// hands the token over in a one-time Secret. Since Kubernetes 1.31, field selectors can use spec.appName and spec.active.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ak
// +kubebuilder:selectablefield:JSONPath=`.spec.appName`
// +kubebuilder:selectablefield:JSONPath=`.spec.active`
// +kubebuilder:printcolumn:name="App",type=string,JSONPath=`.spec.appName`
// +kubebuilder:printcolumn:name="Read",type=boolean,JSONPath=`.spec.readAccess`
// +kubebuilder:printcolumn:name="Write",type=boolean,JSONPath=`.spec.writeAccess`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="Active")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Hint",type=string,JSONPath=`.status.tokens[0].hint`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.spec.expiresAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Last used",type=date,priority=1,JSONPath=`.status.tokens[0].lastUsedAt`
// +kubebuilder:printcolumn:name="Secret",type=string,priority=1,JSONPath=`.status.secretName`
// +kubebuilder:validation:XValidation:rule="has(self.spec.tokenHash) || (has(self.spec.secret) && has(self.spec.secret.name)) || size(self.metadata.name) <= 247",message="metadata.name is longer than 247 characters, which leaves no room for the Secret's default name (<metadata.name>-token): shorten it or set spec.secret.name"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.deactivatedAt) || !has(oldSelf.spec.expiresAt) || (has(self.spec.expiresAt) && self.spec.expiresAt <= oldSelf.spec.expiresAt)",fieldPath=".spec.expiresAt",message="a key that has ended stays ended, so expiresAt cannot become later or be removed: create a new APIKey instead"
type APIKey struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the key. Its owner writes it.
	// +required
	Spec APIKeySpec `json:"spec"`

	// status is the observed state of the key. Only the controller writes it.
	// +optional
	// +kubebuilder:default={conditions: {{type: "Ready", status: "Unknown", reason: "Pending", message: "Waiting for the controller.", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status APIKeyStatus `json:"status,omitempty"`

	// Unreadable lists the paths of the fields that UnmarshalJSON could not decode. It is not part of the JSON object.
	Unreadable []string `json:"-"`
}

// APIKeyList is a list of APIKeys.
//
// +kubebuilder:object:root=true
type APIKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []APIKey `json:"items"`
}

// APIKeySpec is the desired state of an APIKey.
//
// +kubebuilder:validation:XValidation:rule="self.readAccess || self.writeAccess",message="a key needs at least one of readAccess and writeAccess"
// +kubebuilder:validation:XValidation:rule="has(self.secret) == has(oldSelf.secret)",message="spec.secret cannot be added or removed after creation: create a new APIKey, and deactivate this one"
// +kubebuilder:validation:XValidation:rule="has(self.tokenHash) == has(oldSelf.tokenHash)",message="spec.tokenHash cannot be added or removed after creation: create a new APIKey, and deactivate this one"
// +kubebuilder:validation:XValidation:rule="!has(self.tokenHint) || has(self.tokenHash)",message="spec.tokenHint describes an imported token: set it only together with spec.tokenHash"
// +kubebuilder:validation:XValidation:rule="!has(self.secret) || !has(self.tokenHash)",message="spec.secret and spec.tokenHash are mutually exclusive: set spec.secret for a minted token, or spec.tokenHash for an imported one"
// +kubebuilder:validation:XValidation:rule="!has(self.tokenHash) || !has(self.rotation) || (!has(self.rotation.interval) && !has(self.rotation.request))",message="spec.rotation.interval and spec.rotation.request rotate minted tokens: to rotate an imported token, replace spec.tokenHash"
// +kubebuilder:validation:XValidation:rule="!has(self.tokenHash) || self.tokenHash.matches('^sha256:[0-9a-f]{64}$')",fieldPath=".tokenHash",message="tokenHash must be \"sha256:\" followed by 64 lower-case hexadecimal digits, never the token itself: compute the digits with: printf %s \"$TOKEN\" | sha256sum"
// +kubebuilder:validation:XValidation:rule="(self.appName.matches('^[\\\\pL\\\\pM\\\\pN\\\\pP\\\\pS]([\\\\pL\\\\pM\\\\pN\\\\pP\\\\pS\\\\x{200C}\\\\x{200D} ]*[\\\\pL\\\\pM\\\\pN\\\\pP\\\\pS])?$') && !self.appName.matches('[\\\\x{115F}\\\\x{1160}\\\\x{2800}\\\\x{3164}\\\\x{FFA0}]')) || (oldSelf.hasValue() && oldSelf.value().appName == self.appName)",optionalOldSelf=true,fieldPath=".appName",message="appName must consist of printable characters, without leading or trailing space"
// +kubebuilder:validation:XValidation:rule="self.appName == oldSelf.appName",fieldPath=".appName",message="appName is immutable: create a new APIKey, and deactivate this one"
type APIKeySpec struct {
	// appName is the app that the key belongs to: 1 to 255 printable characters of any language, without leading or trailing
	// spaces. Only one active key of a namespace can have the same appName. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	AppName string `json:"appName"`

	// readAccess allows requests that only read: the methods GET, HEAD and OPTIONS, and WebSocket handshakes.
	// +optional
	// +kubebuilder:default=false
	ReadAccess bool `json:"readAccess"`

	// writeAccess allows all other requests.
	// +optional
	// +kubebuilder:default=false
	WriteAccess bool `json:"writeAccess"`

	// active is true by default. Setting it to false deactivates the key permanently: it cannot be set to true again.
	// +optional
	// +kubebuilder:default=true
	// +kubebuilder:validation:XValidation:rule="self == oldSelf || !self",message="a deactivated key stays deactivated: create a new APIKey instead"
	Active *bool `json:"active,omitempty"`

	// expiresAt is the time (RFC 3339) at which the key expires. An expired key is not accepted. Fractions of a second are ignored.
	// Warning events announce the end 7 days and 1 day before. expiresAt can be changed until the controller records that the key has
	// ended (status.deactivatedAt). After that, it cannot become later or be removed, because a key that has ended stays ended.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('9999-12-31T00:00:00Z')",message="expiresAt must be a date and time in the years 1970 to 9999, such as 2027-06-01T00:00:00Z"
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// secret configures the one-time Secret that hands over the minted token. Only ttl can be changed after creation.
	// +optional
	Secret *TokenSecret `json:"secret,omitempty"`

	// tokenHash imports a token that was created elsewhere: "sha256:" and the 64 lower-case hexadecimal digits of the token's SHA-256.
	// The controller then mints no token and writes no Secret. Import only tokens that have at least 128 random bits. To rotate the token,
	// replace tokenHash; it cannot be added or removed.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	TokenHash string `json:"tokenHash,omitempty"`

	// tokenHint is the start of an imported token, at most 7 characters. Lists show it to identify the token.
	// +optional
	// +kubebuilder:validation:MaxLength=7
	// +kubebuilder:validation:XValidation:rule="self.matches('^[!-~]+$')",message="tokenHint must be 1 to 7 visible ASCII characters: the first ones of the token"
	TokenHint string `json:"tokenHint,omitempty"`

	// rotation configures how the token is replaced by another one.
	// +optional
	Rotation *Rotation `json:"rotation,omitempty"`
}

// Rotation configures how the token of a key is replaced by another one. The controller accepts the new token before it writes it to the
// Secret of the key. It continues to accept the former token for the overlap.
//
// +kubebuilder:validation:XValidation:rule="!has(self.overlap) || (self.overlap.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') && size(self.overlap) > 0)",fieldPath=".overlap",message="rotation.overlap must be a duration, such as 0s, 90m or 24h"
// +kubebuilder:validation:XValidation:rule="!has(self.interval) || (self.interval.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') && size(self.interval) > 0 && duration(self.interval) >= duration('1h'))",fieldPath=".interval",message="rotation.interval must be a duration of at least 1h, such as 168h or 2160h"
// +kubebuilder:validation:XValidation:rule="!has(self.interval) || !self.interval.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') || size(self.interval) == 0 || (has(self.overlap) && (!self.overlap.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') || size(self.overlap) == 0)) || duration(self.interval) > duration(has(self.overlap) ? self.overlap : '24h')",fieldPath=".interval",message="rotation.interval must be longer than rotation.overlap, which is 24h by default"
type Rotation struct {
	// overlap is how long a superseded token stays accepted after the rotation: a duration, such as 0s, 90m or 24h. The default is 24h. If
	// it is shortened, tokens that are superseded already end earlier too. If it is extended, they do not end later.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Overlap *metav1.Duration `json:"overlap,omitempty"`

	// interval is the time after which the newest token is rotated: a duration of at least 1h, and longer than overlap, such as 2160h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Interval *metav1.Duration `json:"interval,omitempty"`

	// request rotates the token once.
	// +optional
	Request *RotationRequest `json:"request,omitempty"`
}

// RotationRequest rotates the token of a key once.
//
// +kubebuilder:validation:XValidation:rule="!has(self.overlap) || (self.overlap.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') && size(self.overlap) > 0)",fieldPath=".overlap",message="rotation.request.overlap must be a duration, such as 0s, 90m or 24h"
type RotationRequest struct {
	// at is the time (RFC 3339) at which the token is rotated. Fractions of a second do not count. A request has no effect unless it is
	// later than status.rotationHandled, or, if that is absent, not earlier than the issue of the token.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('9999-12-31T00:00:00Z')",message="rotation.request.at must be a date and time in the years 1970 to 9999, such as 2027-06-01T00:00:00Z"
	At metav1.Time `json:"at"`

	// overlap replaces rotation.overlap in this rotation. With 0s, all former tokens end with the rotation: use it for a token that has
	// leaked.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Overlap *metav1.Duration `json:"overlap,omitempty"`
}

// TokenSecret configures the one-time Secret that hands over a minted token.
//
// +kubebuilder:validation:XValidation:rule="!has(self.name) || self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",fieldPath=".name",message="secret.name must be a valid Secret name: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
// +kubebuilder:validation:XValidation:rule="self.key.matches('^[-._a-zA-Z0-9]+$') && self.key != '.' && !self.key.startsWith('..')",fieldPath=".key",message="secret.key must consist of letters, digits, '-', '_' and '.', and not start with '..' or be '.'"
// +kubebuilder:validation:XValidation:rule="!has(self.ttl) || (self.ttl.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}([.][0-9]{1,9})?s)?$') && size(self.ttl) > 0 && duration(self.ttl) >= duration('1m'))",fieldPath=".ttl",message="secret.ttl must be a duration of at least 1m, such as 90s, 30m or 24h"
// +kubebuilder:validation:XValidation:rule="self.key == oldSelf.key",fieldPath=".key",message="spec.secret.key is immutable: create a new APIKey, and deactivate this one"
// +kubebuilder:validation:XValidation:rule="has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",message="spec.secret.name is immutable, and cannot be added or removed: create a new APIKey, and deactivate this one"
type TokenSecret struct {
	// name is the name of the Secret, in the namespace of the key. The default is <metadata.name>-token. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// key is the key in the Secret's data that holds the token. Immutable.
	// +optional
	// +kubebuilder:default=token
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// ttl is the time after the handover at which the controller deletes the Secret: a duration of at least 1m, such as 30m or 24h.
	// Without it, the Secret exists as long as the key is active.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// labels are written with the Secret, for selectors and for tools such as replicators. Changes have no effect on a Secret that
	// exists, even if a rotation updates it. The Secret also has the labels app.kubernetes.io/managed-by, and keys.squirrel.dev/apikey
	// with the name of the key; the end of a name of more than 63 characters is replaced by a hash.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && k.indexOf('/') <= 253)",message="a key of secret.labels must be a name of at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, after an optional lower-case domain and '/'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",message="a value of secret.labels must be empty, or consist of letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('keys.squirrel.dev/') && k != 'app.kubernetes.io/managed-by')",message="secret.labels must not contain app.kubernetes.io/managed-by or keys of the domain keys.squirrel.dev, which the controller sets"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations are written with the Secret, for tools such as replicators. Changes have no effect on a Secret that exists, even if a
	// rotation updates it.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && k.indexOf('/') <= 253)",message="a key of secret.annotations must be a name of at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, after an optional lower-case domain and '/'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('keys.squirrel.dev/'))",message="secret.annotations must not contain keys of the domain keys.squirrel.dev, which the controller sets"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
type LabelValue string

// AnnotationValue is the value of an annotation. Sixteen values of 4000 characters of four bytes, with the longest names, are less than the
// 256 KiB that Kubernetes allows for the annotations of an object.
//
// +kubebuilder:validation:MaxLength=4000
type AnnotationValue string

// APIKeyStatus is the observed state of an APIKey.
type APIKeyStatus struct {
	// observedGeneration is the metadata.generation that the controller last processed.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// tokens are the records of the key's tokens: the newest one first, then those that it superseded, and last the claim of a token that is
	// being handed over or imported. Authenticators accept a token if its record has a notBefore.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5
	Tokens []TokenRecord `json:"tokens,omitempty"`

	// secretName is the name of the one-time Secret. It is empty until a token is minted, and after the controller has deleted the Secret.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`

	// deactivatedAt is the time at which the controller recorded that the key was deactivated or had expired. It is final: the key
	// cannot become active again.
	// +optional
	DeactivatedAt *metav1.Time `json:"deactivatedAt,omitempty"`

	// rotationHandled is the spec.rotation.request.at of the last rotation that was requested, in whole seconds. If none was requested, it
	// is a time before the first rotation.
	// +optional
	RotationHandled *metav1.Time `json:"rotationHandled,omitempty"`

	// nextRotationAt is the time at which the next rotation is due, by spec.rotation.interval or spec.rotation.request.
	// +optional
	NextRotationAt *metav1.Time `json:"nextRotationAt,omitempty"`

	// conditions are Ready, Active, Reconciling and Stalled. Reconciling exists only during a rotation, and Stalled only while the
	// controller waits for a user to act.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

// TokenRecord describes a token. The token itself is never stored in the APIKey.
type TokenRecord struct {
	// hash is the SHA-256 of the whole token: "sha256:" and 64 lower-case hexadecimal digits.
	// +required
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash"`

	// hint is the start of the token, at most 7 characters. Lists show it to identify the token.
	// +optional
	// +kubebuilder:validation:MaxLength=7
	Hint string `json:"hint,omitempty"`

	// claimedAt is the time at which the controller recorded the hash of a minted token. The controller removes it after the handover. A
	// claim that is older than 15 seconds is void. During a rotation, the claimed token is accepted already, because a client may read it
	// from the Secret at any moment. If the claim becomes void, its token stays accepted for the overlap, and for at least 1 hour.
	// +optional
	ClaimedAt *metav1.Time `json:"claimedAt,omitempty"`

	// notBefore is the time at which the token was issued. Authenticators accept only tokens that have it. They do not compare it with
	// their clock.
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// notAfter is the time at which a superseded token expires. The controller then removes the record.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// lastUsedAt is a time at which an authenticator accepted the token. It is not updated at each use: the last use may be up to a day
	// later, or up to an hour while the key has a superseded token. It is absent if no use was seen.
	// +optional
	LastUsedAt *metav1.Time `json:"lastUsedAt,omitempty"`

	// overlap is the spec.rotation.request.overlap of the rotation that issued this token: how long the token that it superseded stays
	// accepted.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Overlap *metav1.Duration `json:"overlap,omitempty"`
}

// Condition types of an APIKey.
const (
	// ConditionReady is True when the key has the state that its spec declares: issued, deactivated or expired. It is False while a
	// user must act, and Unknown while the controller issues the key. During a rotation it stays True. Positive polarity; never absent.
	ConditionReady = "Ready"

	// ConditionActive is True when authenticators accept the key. It is independent of Ready. Positive polarity; absent until the
	// controller has reconciled the key.
	ConditionActive = "Active"

	// ConditionReconciling is True while the controller rotates the token of a key. Negative polarity; absent otherwise.
	ConditionReconciling = "Reconciling"

	// ConditionStalled is True while the controller waits for a user to act. Negative polarity; absent otherwise.
	ConditionStalled = "Stalled"
)

// Reasons of the conditions of an APIKey.
const (
	ReasonPending           = "Pending"
	ReasonIssued            = "Issued"
	ReasonDeactivated       = "Deactivated"
	ReasonExpired           = "Expired"
	ReasonAppNameConflict   = "AppNameConflict"
	ReasonTokenHashConflict = "TokenHashConflict"
	ReasonSecretConflict    = "SecretConflict"
	ReasonSecretRefused     = "SecretRefused"
	ReasonUnreadable        = "Unreadable"
	ReasonRotating          = "Rotating"
)

// LabelBootstrap marks, with the value "true", the APIKeys that a console created from its bootstrap key file.
const LabelBootstrap = "keys.squirrel.dev/bootstrap"

// LabelManager marks, with the value "true", the APIKeys that may create and deactivate others if a console runs with
// --managers=labelled.
const LabelManager = "keys.squirrel.dev/manager"

// SecretTypeToken is the type of the one-time Secrets.
const SecretTypeToken = "keys.squirrel.dev/token"
