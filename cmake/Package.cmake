# What an installed prefix offers to other CMake projects: find_package(vmmhost).
include(CMakePackageConfigHelpers)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/vmmhostConfig.cmake.in
  ${CMAKE_BINARY_DIR}/vmmhostConfig.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vmmhost
  PATH_VARS VMMHOST_SCHEMADIR VMMHOST_PLUGINDIR VMMHOST_LIBEXECDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/vmmhostConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/vmmhostConfig.cmake ${CMAKE_BINARY_DIR}/vmmhostConfigVersion.cmake
  ${CMAKE_SOURCE_DIR}/cmake/Schemas.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vmmhost)
install(EXPORT vmmhostTargets NAMESPACE vmmhost:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vmmhost)
