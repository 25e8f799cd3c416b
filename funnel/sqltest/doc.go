// Package sqltest tests package funnel with a real database, which the library itself does not depend on.
package sqltest
