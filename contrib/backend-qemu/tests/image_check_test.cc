#include "worker/image_check.h"

#include <gtest/gtest.h>

#include <string>

#include "vmmhost/error.h"

namespace qemubackend {
namespace {

using vmmhost::Error;
using vmmhost::ErrorCode;

std::span<const std::byte> bytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string qcow2(int version, char backing, char incompatible) {
  std::string header(512, '\0');
  header.replace(0, 4, "QFI\xfb");
  header[7] = static_cast<char>(version);
  header[15] = backing;
  header[79] = incompatible;
  return header;
}

ErrorCode refusal(const std::string& header) {
  try {
    checkQcow2Header("disks[0]", bytesOf(header));
  } catch (const Error& error) {
    EXPECT_EQ(error.message().rfind("disks[0].", 0), 0u) << error.message();
    return error.code();
  }
  return ErrorCode::kUnknown;
}

TEST(ImageCheckTest, qcow2ThatStandsAlone_isAccepted) {
  EXPECT_EQ(refusal(qcow2(2, 0, 0)), ErrorCode::kUnknown);
  EXPECT_EQ(refusal(qcow2(3, 0, 1)), ErrorCode::kUnknown);  // dirty
}

TEST(ImageCheckTest, qcow2ThatNamesAnotherFile_isRefused) {
  EXPECT_EQ(refusal(qcow2(2, 1, 0)), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(qcow2(3, 1, 0)), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(qcow2(3, 0, 4)), ErrorCode::kUnsupported);
}

TEST(ImageCheckTest, whatIsNoQcow2_isRefused) {
  EXPECT_EQ(refusal(std::string(512, '\0')), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("QFI\xfb"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal(qcow2(1, 0, 0)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal(qcow2(4, 0, 0)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal(qcow2(3, 0, 0).substr(0, 90)), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace qemubackend
