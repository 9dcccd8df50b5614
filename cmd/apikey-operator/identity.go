// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// controllerAccount is the name of the ServiceAccount in the policies of config/policies.
	controllerAccount = "apikey-controller"

	identityTimeout = 10 * time.Second
)

// checkIdentity returns an error if the controller runs as another ServiceAccount than the one in the policies, as after kustomize's
// namePrefix. The expressions of the policies keep the old name, so that they refuse each status and restrict no Secret.
func (c *controller) checkIdentity(ctx context.Context) error {
	clientset, err := kubernetes.NewForConfig(c.kubernetes)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	review, err := clientset.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		slog.Warn("Cannot check the ServiceAccount of this controller", "err", err)
		return nil
	}
	return validateAccount(review.Status.UserInfo.Username)
}

// validateAccount returns an error if the user is another ServiceAccount than the controller's. Other users are administrators who run the
// controller outside a cluster.
func validateAccount(username string) error {
	account, isAccount := strings.CutPrefix(username, "system:serviceaccount:")
	if _, name, _ := strings.Cut(account, ":"); !isAccount || name == controllerAccount {
		return nil
	}
	return fmt.Errorf("the controller runs as %q, but the admission policies know only the ServiceAccount %s: remove namePrefix and "+
		"nameSuffix from the kustomization, because the objects of apikey-operator have fixed names", username, controllerAccount)
}
