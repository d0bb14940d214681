# Library, headers, find_package(perceiver_deploy) and pkg-config.
include(CMakePackageConfigHelpers)
set(CONFIG_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/perceiver_deploy")

install(TARGETS perceiver_deploy EXPORT perceiver_deployTargets)
install(DIRECTORY include/perceiver_deploy DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT perceiver_deployTargets NAMESPACE perceiver_deploy:: DESTINATION "${CONFIG_DIR}")
configure_package_config_file(cmake/perceiver_deployConfig.cmake.in
  "${PROJECT_BINARY_DIR}/perceiver_deployConfig.cmake" INSTALL_DESTINATION "${CONFIG_DIR}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/perceiver_deployConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/perceiver_deployConfig.cmake"
  "${PROJECT_BINARY_DIR}/perceiver_deployConfigVersion.cmake" DESTINATION "${CONFIG_DIR}")
configure_file(cmake/perceiver_deploy.pc.in "${PROJECT_BINARY_DIR}/perceiver_deploy.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/perceiver_deploy.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
