// What a test says of a call that is to be refused: by an Error with these words in its message, so that nothing else
// is what refuses it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::tests {

template <typename Call>
void expectRefusal(const std::string& words, Call&& call) {
  try {
    std::forward<Call>(call)();
    ADD_FAILURE() << "was not refused, expected: " << words;
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(words), std::string::npos) << error.message() << "\nexpected in it: " << words;
  }
}

}  // namespace vmmhost::tests
